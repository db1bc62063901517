//! What a registry keeps of a plugin: an OCI index, one image per platform, and in it the
//! one layer that fleeting marks. Pure.

use std::collections::BTreeMap;

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::InstallError;
use super::version::Version;

/// The mark of the layer with the plugin; its value is the version.
const LAYER_MARK: &str = "com.gitlab.fleeting.layer";
pub(super) const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";
/// Docker's older name for the same.
const LIST_TYPE: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub(super) const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const DOCKER_MANIFEST_TYPE: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// What is asked for.
pub(super) const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json";
/// An index or a manifest has at most so many bytes, as in other clients.
pub(super) const MAX_MANIFEST_BYTES: u64 = 4 * 1024 * 1024;
/// A packed plugin has at most so many.
pub(super) const MAX_LAYER_BYTES: u64 = 1024 * 1024 * 1024;

/// Platforms that an error shows.
const MAX_SHOWN: usize = 40;

/// `sha256:` and 64 digits.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Digest(String);

impl Digest {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self::finished(Sha256::new_with_prefix(bytes))
    }

    pub(crate) fn finished(hash: Sha256) -> Self {
        Self(format!("sha256:{:x}", hash.finalize()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The digits, which are also a file's name in a layout.
    pub(super) fn digits(&self) -> &str {
        self.0.trim_start_matches("sha256:")
    }
}

impl TryFrom<String> for Digest {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        let good = text
            .strip_prefix("sha256:")
            .is_some_and(|digits| digits.len() == 64 && digits.bytes().all(is_digit));
        if good { Ok(Self(text)) } else { Err(format!("{text:?} is no sha256 digest")) }
    }
}

/// Something with a size and a digest.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    #[serde(default)]
    pub(super) media_type: String,
    pub(super) digest: Digest,
    pub(super) size: u64,
    #[serde(default)]
    pub(super) annotations: BTreeMap<String, String>,
    #[serde(default)]
    platform: Option<PlatformEntry>,
}

#[derive(Clone, Debug, Deserialize)]
struct PlatformEntry {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    variant: String,
}

/// The images of one version.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Index {
    #[serde(default)]
    media_type: String,
    #[serde(default)]
    pub(super) manifests: Vec<Descriptor>,
}

#[derive(Debug, Deserialize)]
struct Manifest {
    #[serde(default)]
    layers: Vec<Descriptor>,
}

/// The layer with a plugin.
#[derive(Clone, Debug)]
pub(super) struct Layer {
    pub(super) descriptor: Descriptor,
    pub(super) version: Version,
}

impl Index {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, InstallError> {
        let index: Self = parse(bytes, "index")?;
        let is_index = ["", INDEX_TYPE, LIST_TYPE].contains(&index.media_type.as_str());
        if !is_index || index.manifests.is_empty() {
            return Err(InstallError::NotAPlugin(
                "it is a single image, not an index of one image per platform".into(),
            ));
        }
        Ok(index)
    }

    /// The image that fits best.
    pub(super) fn image_for(&self, platform: &Platform) -> Result<&Descriptor, InstallError> {
        let kinds = ["", MANIFEST_TYPE, DOCKER_MANIFEST_TYPE];
        let find = |(architecture, variant): &(&str, &str)| {
            self.manifests.iter().find(|image| {
                kinds.contains(&image.media_type.as_str())
                    && image.platform.as_ref().is_some_and(|entry| {
                        entry.os == platform.os
                            && entry.architecture == *architecture
                            && entry.variant == *variant
                    })
            })
        };
        platform.accepted().iter().find_map(find).ok_or_else(|| InstallError::NoImage {
            platform: platform.to_string(),
            offered: self.offered(),
        })
    }

    fn offered(&self) -> String {
        let entries = self.manifests.iter().filter_map(|image| image.platform.as_ref());
        let mut names: Vec<String> = entries
            .map(|entry| {
                let name = format!("{}/{}/{}", entry.os, entry.architecture, entry.variant);
                name.trim_end_matches('/').to_owned()
            })
            .collect();
        names.sort();
        names.dedup();
        names.truncate(MAX_SHOWN);
        // A registry's words may hold what a terminal obeys.
        names.join(", ").escape_debug().to_string()
    }
}

/// The layer with the plugin, of a manifest.
pub(super) fn layer_of(manifest: &[u8]) -> Result<Layer, InstallError> {
    let manifest: Manifest = parse(manifest, "manifest")?;
    let marked = |layer: Descriptor| {
        let version = layer.annotations.get(LAYER_MARK)?.clone();
        Some((layer, version))
    };
    let (descriptor, version) = manifest.layers.into_iter().find_map(marked).ok_or_else(|| {
        InstallError::NotAPlugin(format!("no layer of its image has the mark {LAYER_MARK}"))
    })?;
    let version = version
        .parse()
        .map_err(|error| InstallError::NotAPlugin(format!("the version of its layer: {error}")))?;
    if descriptor.size > MAX_LAYER_BYTES {
        return Err(InstallError::TooLarge { what: "layer", limit: MAX_LAYER_BYTES });
    }
    Ok(Layer { descriptor, version })
}

fn parse<T: serde::de::DeserializeOwned>(bytes: &[u8], what: &str) -> Result<T, InstallError> {
    serde_json::from_slice(bytes)
        .map_err(|error| InstallError::NotAPlugin(format!("its {what} cannot be read: {error}")))
}

/// Operating system and architecture, in Go's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Platform {
    os: String,
    architecture: String,
}

impl Platform {
    /// This machine's.
    pub(crate) fn own() -> Self {
        let os = match std::env::consts::OS {
            "macos" => "darwin",
            other => other,
        };
        let architecture = match std::env::consts::ARCH {
            "x86" => "386",
            "powerpc64" => "ppc64le",
            "mips64" => "mips64le",
            _ => crate::go_arch(),
        };
        Self { os: os.into(), architecture: architecture.into() }
    }

    /// Architectures and variants that run here, the best first, as GitLab Runner tries
    /// them. Which variant of amd64 this processor is, is not asked: the base runs on all.
    fn accepted(&self) -> Vec<(&str, &str)> {
        match self.architecture.as_str() {
            "amd64" => vec![("amd64", ""), ("amd64", "v1"), ("386", "")],
            "arm64" => vec![
                ("arm64", ""),
                ("arm64", "v8"),
                ("arm", "v8"),
                ("arm", "v7"),
                ("arm", "v6"),
                ("arm", "v5"),
            ],
            "arm" => vec![("arm", "v7"), ("arm", "v6"), ("arm", "v5"), ("arm", "")],
            other => vec![(other, "")],
        }
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn digest(n: u8) -> String {
        format!("sha256:{}", format!("{n:02x}").repeat(32))
    }

    fn index(entries: &[(&str, &str, &str)]) -> Index {
        let manifests: Vec<_> = entries
            .iter()
            .zip(1..)
            .map(|((os, architecture, variant), n)| {
                json!({"mediaType": MANIFEST_TYPE, "digest": digest(n), "size": 1,
                    "platform": {"os": os, "architecture": architecture, "variant": variant}})
            })
            .collect();
        let text = json!({"mediaType": INDEX_TYPE, "manifests": manifests}).to_string();
        Index::parse(text.as_bytes()).unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn the_best_image_of_a_platform_is_taken() {
        let all = [
            ("windows", "amd64", ""),
            ("linux", "386", ""),
            ("linux", "arm", "v5"),
            ("linux", "arm", "v6"),
            ("linux", "arm64", "v8"),
            ("linux", "amd64", "v3"),
            ("linux", "amd64", ""),
        ];
        let cases = [
            (&all[..], "amd64", Some(7)),
            (&all[..6], "amd64", Some(2)),
            (&all[..], "arm64", Some(5)),
            (&all[..4], "arm64", Some(4)),
            (&all[..3], "arm", Some(3)),
            (&all[..], "s390x", None),
            (&all[..1], "amd64", None),
        ];
        for (entries, architecture, expected) in cases {
            let index = index(entries);
            let platform = Platform { os: "linux".into(), architecture: architecture.into() };
            let found = index.image_for(&platform).map(|image| image.digest.as_str().to_owned());
            match expected {
                Some(n) => assert_eq!(found.ok(), Some(digest(n)), "{architecture}"),
                None => {
                    let error = found.expect_err("none fits").to_string();
                    assert!(error.contains("windows/amd64"), "{error}");
                }
            }
        }
    }

    #[test]
    fn only_a_marked_layer_is_a_plugin() {
        let with = |annotations: serde_json::Value, size: u64| {
            let layer = json!({"digest": digest(1), "size": size, "annotations": annotations});
            let plain = json!({"digest": digest(2), "size": 1});
            layer_of(json!({"layers": [plain, layer]}).to_string().as_bytes())
        };
        let layer = with(json!({LAYER_MARK: "1.2.3"}), 7).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(layer.version.to_string(), "1.2.3");
        assert_eq!(layer.descriptor.digest.as_str(), digest(1));
        for (annotations, size, expected) in [
            (json!({}), 1, "has the mark"),
            (json!({LAYER_MARK: "v1"}), 1, "is no version"),
            (json!({LAYER_MARK: "../../x"}), 1, "is no version"),
            (json!({LAYER_MARK: "1.0.0"}), u64::MAX, "larger than"),
        ] {
            let error = with(annotations, size).expect_err(expected).to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn what_is_no_index_is_refused() {
        for text in [
            "",
            "[]",
            "{}",
            r#"{"layers": []}"#,
            r#"{"manifests": [{"digest": "sha256:../x", "size": 1}]}"#,
        ] {
            assert!(Index::parse(text.as_bytes()).is_err(), "{text}");
        }
    }
}
