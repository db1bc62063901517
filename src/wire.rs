//! The generated messages, and the way between them and the contract's types.
//!
//! Defaults of the wire (zero, empty, absent) become meanings here and nowhere else.

#[cfg(any(feature = "serve", test))]
use std::time::SystemTime;
use std::time::{Duration, UNIX_EPOCH};

use crate::contract::{ConnectInfo, ConnectorConfig, Error, InstanceState, Protocol};

#[expect(unreachable_pub, reason = "generated code")]
pub(crate) mod fleeting {
    tonic::include_proto!("proto");
}
#[expect(unreachable_pub, reason = "generated code")]
pub(crate) mod go_plugin {
    tonic::include_proto!("plugin");
}
#[expect(unreachable_pub, reason = "generated code")]
pub(crate) mod health {
    tonic::include_proto!("grpc.health.v1");
}
#[expect(unreachable_pub, reason = "generated code")]
pub(crate) mod rpc {
    tonic::include_proto!("google.rpc");
}

/// Largest message either side takes: 2^31 - 1 bytes, as in fleeting.
pub(crate) const MAX_MESSAGE_BYTES: usize = i32::MAX as usize;
/// The capability that allows `Suspend` and `Resume`.
pub(crate) const SUSPEND_RESUME: &str = "suspend_resume";
/// Type of the typed detail in a failed `Suspend`.
pub(crate) const SUSPEND_DETAIL: &str = "type.googleapis.com/proto.SuspendResponse";
/// Type of the typed detail in a failed `Resume`.
pub(crate) const RESUME_DETAIL: &str = "type.googleapis.com/proto.ResumeResponse";

pub(crate) fn connector_to_wire(connector: &ConnectorConfig) -> fleeting::ConnectorConfig {
    fleeting::ConnectorConfig {
        os: connector.os.clone(),
        arch: connector.arch.clone(),
        protocol: connector.protocol.map_or("", Protocol::as_str).to_owned(),
        username: connector.username.clone(),
        password: connector.password.clone(),
        key: connector.key.clone(),
        use_static_credentials: connector.use_static_credentials,
        keepalive: nanos(connector.keepalive),
        timeout: nanos(connector.timeout),
        protocol_port: connector.protocol_port.map_or(0, i64::from),
    }
}

pub(crate) fn connector_from_wire(
    wire: fleeting::ConnectorConfig,
) -> Result<ConnectorConfig, Error> {
    let protocol_port = match wire.protocol_port {
        0 => None,
        port => Some(u16::try_from(port).map_err(|_| {
            Error::new(format!(
                "protocol port {port} is invalid: must be in the range 1 through 65535"
            ))
        })?),
    };
    Ok(ConnectorConfig {
        protocol: Protocol::parse(&wire.protocol)?,
        protocol_port,
        os: wire.os,
        arch: wire.arch,
        username: wire.username,
        password: wire.password,
        key: wire.key,
        use_static_credentials: wire.use_static_credentials,
        keepalive: duration(wire.keepalive),
        timeout: duration(wire.timeout),
    })
}

#[cfg(any(feature = "serve", test))]
pub(crate) fn connect_info_to_wire(info: &ConnectInfo) -> fleeting::ConnectInfoResponse {
    let seconds = |at: SystemTime| at.duration_since(UNIX_EPOCH).map_or(1, |d| d.as_secs());
    fleeting::ConnectInfoResponse {
        // A stock host panics where the connector is missing.
        connector: Some(connector_to_wire(&info.connector)),
        external_addr: info.external_addr.clone(),
        internal_addr: info.internal_addr.clone(),
        expires: info.expires.map_or(0, |at| i64::try_from(seconds(at)).unwrap_or(i64::MAX)),
    }
}

#[cfg(any(feature = "host", test))]
pub(crate) fn connect_info_from_wire(
    wire: fleeting::ConnectInfoResponse,
) -> Result<ConnectInfo, Error> {
    let expires = u64::try_from(wire.expires)
        .ok()
        .filter(|seconds| *seconds > 0)
        .and_then(|seconds| UNIX_EPOCH.checked_add(Duration::from_secs(seconds)));
    let mut info = ConnectInfo::new(connector_from_wire(wire.connector.unwrap_or_default())?)
        .internal(wire.internal_addr)
        .external(wire.external_addr);
    info.expires = expires;
    Ok(info)
}

/// `None` for a state that has no number: it is not sent.
#[cfg(any(feature = "serve", test))]
pub(crate) fn state_to_wire(state: InstanceState) -> Option<fleeting::update_response::State> {
    use fleeting::update_response::State;
    Some(match state {
        InstanceState::Creating => State::Creating,
        InstanceState::Running => State::Running,
        InstanceState::Deleting => State::Deleting,
        InstanceState::Deleted => State::Deleted,
        InstanceState::Timeout => State::Timeout,
        InstanceState::Suspending => State::Suspending,
        InstanceState::Suspended => State::Suspended,
        InstanceState::Resuming => State::Resuming,
        InstanceState::Unknown(_) => return None,
    })
}

#[cfg(any(feature = "host", test))]
pub(crate) fn state_from_wire(number: i32) -> InstanceState {
    use fleeting::update_response::State;
    match State::try_from(number) {
        Ok(State::Creating) => InstanceState::Creating,
        Ok(State::Running) => InstanceState::Running,
        Ok(State::Deleting) => InstanceState::Deleting,
        Ok(State::Deleted) => InstanceState::Deleted,
        Ok(State::Timeout) => InstanceState::Timeout,
        Ok(State::Suspending) => InstanceState::Suspending,
        Ok(State::Suspended) => InstanceState::Suspended,
        Ok(State::Resuming) => InstanceState::Resuming,
        Err(_) => InstanceState::Unknown(number),
    }
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

fn duration(nanos: i64) -> Duration {
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    /// The bytes that a stock host sends for this configuration (observed).
    const GOLDEN_INIT: &[u8] = &[
        0x0a, 0x07, 0x7b, 0x22, 0x61, 0x22, 0x3a, 0x31, 0x7d, 0x12, 0x19, 0x0a, 0x17, 0x0a, 0x05,
        0x6c, 0x69, 0x6e, 0x75, 0x78, 0x40, 0x80, 0xd8, 0x8e, 0xe1, 0x6f, 0x48, 0x80, 0xe0, 0xa5,
        0x96, 0xbb, 0x11, 0x50, 0xae, 0x11,
    ];

    #[test]
    fn init_is_the_stock_hosts_init() {
        let connector = ConnectorConfig {
            os: "linux".into(),
            keepalive: Duration::from_secs(30),
            timeout: Duration::from_secs(600),
            protocol_port: Some(2222),
            ..ConnectorConfig::default()
        };
        let request = fleeting::InitRequest {
            config: br#"{"a":1}"#.to_vec(),
            settings: Some(fleeting::Settings {
                connector_config: Some(connector_to_wire(&connector)),
            }),
        };
        assert_eq!(request.encode_to_vec(), GOLDEN_INIT);
        let wire = request.settings.and_then(|s| s.connector_config).expect("set above");
        assert_eq!(connector_from_wire(wire), Ok(connector));
    }

    #[test]
    fn an_absent_connector_is_an_empty_one() {
        let info = connect_info_from_wire(fleeting::ConnectInfoResponse::default());
        assert_eq!(info, Ok(ConnectInfo::default()));
    }

    #[test]
    fn expiry_is_seconds_and_zero_is_never() {
        let at = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let info = ConnectInfo::default().expires(at);
        let wire = connect_info_to_wire(&info);
        assert_eq!(wire.expires, 1_800_000_000);
        assert_eq!(connect_info_from_wire(wire), Ok(info));
        let never = fleeting::ConnectInfoResponse { expires: -1, ..Default::default() };
        assert_eq!(connect_info_from_wire(never).map(|i| i.expires), Ok(None));
    }

    #[test]
    fn states_round_trip_and_unknown_ones_are_kept() {
        for number in 0..8 {
            let state = state_from_wire(number);
            assert_eq!(state_to_wire(state).map(i32::from), Some(number));
        }
        assert_eq!(state_from_wire(9), InstanceState::Unknown(9));
        assert_eq!(state_to_wire(InstanceState::Unknown(9)), None);
    }

    #[test]
    fn an_impossible_port_is_an_error() {
        let wire = fleeting::ConnectorConfig { protocol_port: 70_000, ..Default::default() };
        assert!(connector_from_wire(wire).is_err());
    }
}
