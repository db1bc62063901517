//! Chance that can be repeated: every number follows from a seed, a purpose and a count.

/// A number from 0 (included) to 1 (excluded).
pub(crate) fn fraction(seed: u64, purpose: &str, n: u64) -> f64 {
    let bits = purpose.bytes().fold(scatter(seed), |hash, byte| scatter(hash ^ u64::from(byte)));
    // As many bits as a f64 has digits for.
    (scatter(bits ^ n) >> 11) as f64 / (1u64 << 53) as f64
}

/// A number of the standard normal distribution.
pub(crate) fn normal(seed: u64, purpose: &str, n: u64) -> f64 {
    let radius = (-2.0 * (1.0 - fraction(seed, purpose, 2 * n)).ln()).sqrt();
    radius * (std::f64::consts::TAU * fraction(seed, purpose, 2 * n + 1)).cos()
}

/// The finalizer of SplitMix64.
fn scatter(value: u64) -> u64 {
    let mut bits = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chance_repeats_itself_and_differs_by_all_it_is_made_from() {
        let at = fraction(1, "boot", 1);
        assert_eq!(at.to_bits(), fraction(1, "boot", 1).to_bits());
        for other in [fraction(2, "boot", 1), fraction(1, "delete", 1), fraction(1, "boot", 2)] {
            assert_ne!(at.to_bits(), other.to_bits());
        }
    }

    #[test]
    fn it_is_spread_evenly_and_the_normal_one_normally() {
        let below = |limit: f64| (0..10_000).filter(|n| fraction(7, "x", *n) < limit).count();
        assert!((2_350..2_650).contains(&below(0.25)) && below(1.0) == 10_000);
        let beyond = (0..10_000).filter(|n| normal(7, "x", *n) > 1.6449).count();
        assert!((420..580).contains(&beyond), "{beyond} of 500");
    }
}
