//! The words of `[runners.docker]`: sizes, shares of processors, volumes, devices. Pure.
//!
//! Each is read as GitLab Runner reads it; where it would fail every job, there is none.

use std::net::IpAddr;

use job::compose::docker::Device;

/// Mount options that GitLab Runner's `volumes` may have (`linux_parser.go`).
const MOUNT_OPTIONS: [&str; 10] =
    ["ro", "rw", "o", "z", "shared", "slave", "private", "rshared", "rslave", "rprivate"];

/// Bytes, from a number with one of Docker's units: `b`, `k`, `m`, `g`, `t`, `p`, each 1024
/// of the one before, also as `kb` or `KiB` (`units.RAMInBytes`).
pub(super) fn bytes(text: &str) -> Option<i64> {
    let end = text.rfind(|c: char| c.is_ascii_digit() || c == '.' || c == ' ')? + 1;
    let (number, unit) = (text[..end].strip_suffix(' ').unwrap_or(&text[..end]), &text[end..]);
    let unit = unit.to_ascii_lowercase();
    let power = match unit.strip_suffix("ib").or(unit.strip_suffix('b')).unwrap_or(&unit) {
        "" if unit.len() < 2 => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return None,
    };
    whole(decimal(number)? * 1024_f64.powi(power))
}

/// Billionths of a processor, from a number or a fraction (`1/2`).
pub(super) fn nano_cpus(text: &str) -> Option<i64> {
    let (number, divisor) = match text.split_once('/') {
        Some((number, divisor)) => (decimal(number)?, decimal(divisor)?),
        None => (decimal(text)?, 1.0),
    };
    whole((number / divisor * 1e9).round())
}

/// A number that is not negative, of digits and a point only.
fn decimal(text: &str) -> Option<f64> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    text.parse().ok().filter(|_| is_plain)
}

/// The whole part, where it can be sent to a daemon.
#[expect(clippy::cast_possible_truncation, reason = "the bound is checked")]
fn whole(number: f64) -> Option<i64> {
    (0.0..9e18).contains(&number).then_some(number as i64)
}

/// A soft and a hard limit, from `soft:hard` or one number for both.
pub(super) fn ulimit(text: &str) -> Option<(i64, i64)> {
    let (soft, hard) = text.split_once(':').unwrap_or((text, text));
    Some((soft.parse().ok()?, hard.parse().ok()?))
}

/// A device, from `outside[:inside[:permissions]]`; inside as outside, with all permissions,
/// where nothing else is said.
pub(super) fn device(text: &str) -> Option<Device> {
    let mut parts = text.split(':');
    let outside = parts.next()?;
    let inside = parts.next().unwrap_or(outside);
    let permissions = parts.next().unwrap_or("rwm");
    let are_paths = [outside, inside].iter().all(|path| path.starts_with('/'));
    let are_permissions = !permissions.is_empty() && permissions.chars().all(|c| "rwm".contains(c));
    (are_paths && are_permissions && parts.next().is_none()).then(|| Device {
        outside: outside.into(),
        inside: inside.into(),
        permissions: permissions.into(),
    })
}

/// A volume as the engine takes it, and where it is in the container.
#[derive(Debug, PartialEq)]
pub(super) struct Volume<'a> {
    pub(super) text: &'a str,
    pub(super) inside: &'a str,
}

/// A volume, from `/inside` or `outside:/inside[:options]`, or what is wrong with it. Options
/// of a volume without a source count for nothing.
pub(super) fn volume(text: &str) -> Result<Volume<'_>, &'static str> {
    let parts: Vec<&str> = text.split(':').collect();
    let (source, inside, options) = match parts[..] {
        [inside] => (None, inside, &[][..]),
        [source, inside, ref options @ ..] if inside.starts_with('/') => {
            (Some(source), inside, options)
        }
        [inside, ref options @ ..] => (None, inside, options),
        [] => return Err("is empty"),
    };
    if !inside.starts_with('/') {
        return Err("has no absolute path inside the container");
    }
    if inside.bytes().all(|byte| byte == b'/') {
        return Err("would hide all of the container's files");
    }
    if source.is_some_and(|source| !is_source(source)) {
        return Err("has a source that is neither an absolute path nor a volume's name");
    }
    let is_option =
        |option: &str| MOUNT_OPTIONS.iter().any(|known| option.eq_ignore_ascii_case(known));
    if !options.iter().flat_map(|options| options.split(',')).all(is_option) {
        return Err("has an option that GitLab Runner does not know");
    }
    let text = if source.is_some() { text } else { inside };
    Ok(Volume { text, inside: inside.trim_end_matches('/') })
}

fn is_source(source: &str) -> bool {
    source.starts_with('/') || (!source.is_empty() && !source.contains('/'))
}

/// What of Docker's `--gpus` the engine knows: `all`, a number, `device=…`, which may be in
/// quotes.
pub(super) fn gpus(text: &str) -> Option<String> {
    let text = text.trim();
    let text = text.strip_prefix('"').and_then(|t| t.strip_suffix('"')).unwrap_or(text);
    let is_count = text == "all" || text.parse::<u32>().is_ok();
    let devices = text.strip_prefix("device=").filter(|d| !d.is_empty() && !d.contains('='));
    (is_count || devices.is_some()).then(|| text.to_owned())
}

/// An address, with a zone or without.
pub(super) fn address(text: &str) -> Option<String> {
    let address = text.split_once('%').map_or(text, |(address, _)| address);
    address.parse::<IpAddr>().ok().map(|_| text.to_owned())
}

/// `name:address`.
pub(super) fn extra_host(text: &str) -> Option<String> {
    let (name, address) = text.split_once(':')?;
    (!name.is_empty() && !address.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_dockers() {
        let cases = [
            ("128m", Some(128 << 20)),
            ("1g", Some(1 << 30)),
            ("1.5G", Some(3 << 29)),
            ("512", Some(512)),
            ("512b", Some(512)),
            ("32 k", Some(32 << 10)),
            ("32kb", Some(32 << 10)),
            ("32KiB", Some(32 << 10)),
            ("2T", Some(2 << 40)),
            ("1p", Some(1 << 50)),
            ("9000p", None),
            ("", None),
            ("m", None),
            ("-1", None),
            ("1e3", None),
            ("inf", None),
            ("32ib", None),
            ("32kbb", None),
            ("32x", None),
            ("much", None),
        ];
        for (text, size) in cases {
            assert_eq!(bytes(text), size, "{text}");
        }
    }

    #[test]
    fn shares_of_processors() {
        let cases = [
            ("2", Some(2_000_000_000)),
            ("2.5", Some(2_500_000_000)),
            ("2.3", Some(2_300_000_000)),
            (".5", Some(500_000_000)),
            ("1/2", Some(500_000_000)),
            ("1/0", None),
            ("-1", None),
            ("two", None),
        ];
        for (text, nanos) in cases {
            assert_eq!(nano_cpus(text), nanos, "{text}");
        }
    }

    #[test]
    fn limits_are_one_number_or_two() {
        let cases = [
            ("99", Some((99, 99))),
            ("1024:2048", Some((1024, 2048))),
            ("-1", Some((-1, -1))),
            ("1024:", None),
            ("many", None),
        ];
        for (text, limits) in cases {
            assert_eq!(ulimit(text), limits, "{text}");
        }
    }

    #[test]
    fn devices_are_paths_with_permissions() {
        let cases = [
            ("/dev/kvm", Some(("/dev/kvm", "/dev/kvm", "rwm"))),
            ("/dev/a:/dev/b", Some(("/dev/a", "/dev/b", "rwm"))),
            ("/dev/a:/dev/b:r", Some(("/dev/a", "/dev/b", "r"))),
            ("/dev/a:rwm", None),
            ("/dev/a:/dev/b:x", None),
            ("/dev/a:/dev/b:r:w", None),
            ("dev/a", None),
            ("", None),
        ];
        for (text, parts) in cases {
            let found = device(text);
            let found = found
                .as_ref()
                .map(|device| (&*device.outside, &*device.inside, &*device.permissions));
            assert_eq!(found, parts, "{text}");
        }
    }

    #[test]
    fn volumes_are_gitlabs() {
        let good = [
            ("/cache", "/cache", "/cache"),
            ("/cache/", "/cache/", "/cache"),
            ("/cache:ro", "/cache", "/cache"),
            ("/a:/b", "/a:/b", "/b"),
            ("/a:/b:ro,z", "/a:/b:ro,z", "/b"),
            ("/a:/b:RW:rslave", "/a:/b:RW:rslave", "/b"),
            ("named:/b", "named:/b", "/b"),
            ("/builds/$CI_PROJECT_NAME", "/builds/$CI_PROJECT_NAME", "/builds/$CI_PROJECT_NAME"),
        ];
        for (text, taken, inside) in good {
            assert_eq!(volume(text), Ok(Volume { text: taken, inside }), "{text}");
        }
        for text in ["cache", "", "/", "/a:b", "/a:/", ":/b", "./a:/b", "a/b:/c", "/a:/b:nocopy"] {
            assert!(volume(text).is_err(), "{text}");
        }
    }

    #[test]
    fn processors_of_graphics_are_counted_or_named() {
        let cases = [
            ("all", Some("all")),
            (" 2 ", Some("2")),
            ("device=0", Some("device=0")),
            ("\"device=0,2\"", Some("device=0,2")),
            ("device=", None),
            ("device=0,driver=nvidia", None),
            ("capabilities=utility", None),
        ];
        for (text, taken) in cases {
            assert_eq!(gpus(text).as_deref(), taken, "{text}");
        }
    }

    #[test]
    fn addresses_and_hosts() {
        for (text, good) in [("8.8.8.8", true), ("fe80::1%eth0", true), ("dns.example", false)] {
            assert_eq!(address(text).is_some(), good, "{text}");
        }
        for (text, good) in [("db:10.0.0.1", true), ("db:::1", true), ("db", false), (":1", false)]
        {
            assert_eq!(extra_host(text).is_some(), good, "{text}");
        }
    }
}
