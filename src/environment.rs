//! Which of its own environment a process hands to programs that talk to a provider.

/// Basics, proxies, certificates and the families that cloud SDKs read. The other secrets
/// of the process are none of such a program's business.
#[must_use]
pub fn is_for_providers(name: &str) -> bool {
    const NAMES: [&str; 18] = [
        "PATH",
        "HOME",
        "USER",
        "LOGNAME",
        "LANG",
        "TZ",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "NO_PROXY",
        "ALL_PROXY",
        "http_proxy",
        "https_proxy",
        "no_proxy",
        "all_proxy",
        "KUBECONFIG",
        "XDG_RUNTIME_DIR",
    ];
    const FAMILIES: [&str; 16] = [
        "LC_",
        "XDG_",
        "AWS_",
        "GOOGLE_",
        "CLOUDSDK_",
        "GCE_",
        "AZURE_",
        "ARM_",
        "OS_",
        "DOCKER_",
        "HCLOUD_",
        "PROXMOX_",
        "LIBVIRT_",
        "INCUS_",
        "NOMAD_",
        "MAYFLY_PLUGIN_",
    ];
    NAMES.contains(&name) || FAMILIES.iter().any(|family| name.starts_with(family))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plugins_see_cloud_settings_but_not_the_hosts_secrets() {
        for name in ["PATH", "AWS_PROFILE", "NOMAD_ADDR", "https_proxy", "LC_ALL"] {
            assert!(is_for_providers(name), "{name}");
        }
        for name in
            ["CI_SERVER_TOKEN", "PLUGIN_CLIENT_CERT", "PLUGIN_UNIX_SOCKET_DIR", "GITLAB_TOKEN"]
        {
            assert!(!is_for_providers(name), "{name}");
        }
    }
}
