//! The paths of the gateway, by method.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use axum::http::uri::PathAndQuery;
use bowline_api::DESCRIPTORS;
use prost_reflect::{DescriptorPool, MethodDescriptor};

/// The methods that can be called with JSON, each with its paths. They are those of etcd.
const PATHS: [(&str, &[&str]); 48] = [
    ("etcdserverpb.KV/Range", &["/v3/kv/range"]),
    ("etcdserverpb.KV/Put", &["/v3/kv/put"]),
    ("etcdserverpb.KV/DeleteRange", &["/v3/kv/deleterange"]),
    ("etcdserverpb.KV/Txn", &["/v3/kv/txn"]),
    ("etcdserverpb.KV/Compact", &["/v3/kv/compaction"]),
    ("etcdserverpb.Watch/Watch", &["/v3/watch"]),
    ("etcdserverpb.Lease/LeaseGrant", &["/v3/lease/grant"]),
    ("etcdserverpb.Lease/LeaseRevoke", &["/v3/lease/revoke", "/v3/kv/lease/revoke"]),
    ("etcdserverpb.Lease/LeaseKeepAlive", &["/v3/lease/keepalive"]),
    ("etcdserverpb.Lease/LeaseTimeToLive", &["/v3/lease/timetolive", "/v3/kv/lease/timetolive"]),
    ("etcdserverpb.Lease/LeaseLeases", &["/v3/lease/leases", "/v3/kv/lease/leases"]),
    ("etcdserverpb.Cluster/MemberAdd", &["/v3/cluster/member/add"]),
    ("etcdserverpb.Cluster/MemberRemove", &["/v3/cluster/member/remove"]),
    ("etcdserverpb.Cluster/MemberUpdate", &["/v3/cluster/member/update"]),
    ("etcdserverpb.Cluster/MemberList", &["/v3/cluster/member/list"]),
    ("etcdserverpb.Cluster/MemberPromote", &["/v3/cluster/member/promote"]),
    ("etcdserverpb.Maintenance/Alarm", &["/v3/maintenance/alarm"]),
    ("etcdserverpb.Maintenance/Status", &["/v3/maintenance/status"]),
    ("etcdserverpb.Maintenance/Defragment", &["/v3/maintenance/defragment"]),
    ("etcdserverpb.Maintenance/Hash", &["/v3/maintenance/hash"]),
    ("etcdserverpb.Maintenance/HashKV", &["/v3/maintenance/hashkv"]),
    ("etcdserverpb.Maintenance/Snapshot", &["/v3/maintenance/snapshot"]),
    ("etcdserverpb.Maintenance/MoveLeader", &["/v3/maintenance/transfer-leadership"]),
    ("etcdserverpb.Maintenance/Downgrade", &["/v3/maintenance/downgrade"]),
    ("etcdserverpb.Auth/AuthEnable", &["/v3/auth/enable"]),
    ("etcdserverpb.Auth/AuthDisable", &["/v3/auth/disable"]),
    ("etcdserverpb.Auth/AuthStatus", &["/v3/auth/status"]),
    ("etcdserverpb.Auth/Authenticate", &["/v3/auth/authenticate"]),
    ("etcdserverpb.Auth/UserAdd", &["/v3/auth/user/add"]),
    ("etcdserverpb.Auth/UserGet", &["/v3/auth/user/get"]),
    ("etcdserverpb.Auth/UserList", &["/v3/auth/user/list"]),
    ("etcdserverpb.Auth/UserDelete", &["/v3/auth/user/delete"]),
    ("etcdserverpb.Auth/UserChangePassword", &["/v3/auth/user/changepw"]),
    ("etcdserverpb.Auth/UserGrantRole", &["/v3/auth/user/grant"]),
    ("etcdserverpb.Auth/UserRevokeRole", &["/v3/auth/user/revoke"]),
    ("etcdserverpb.Auth/RoleAdd", &["/v3/auth/role/add"]),
    ("etcdserverpb.Auth/RoleGet", &["/v3/auth/role/get"]),
    ("etcdserverpb.Auth/RoleList", &["/v3/auth/role/list"]),
    ("etcdserverpb.Auth/RoleDelete", &["/v3/auth/role/delete"]),
    ("etcdserverpb.Auth/RoleGrantPermission", &["/v3/auth/role/grant"]),
    ("etcdserverpb.Auth/RoleRevokePermission", &["/v3/auth/role/revoke"]),
    ("v3lockpb.Lock/Lock", &["/v3/lock/lock"]),
    ("v3lockpb.Lock/Unlock", &["/v3/lock/unlock"]),
    ("v3electionpb.Election/Campaign", &["/v3/election/campaign"]),
    ("v3electionpb.Election/Proclaim", &["/v3/election/proclaim"]),
    ("v3electionpb.Election/Leader", &["/v3/election/leader"]),
    ("v3electionpb.Election/Observe", &["/v3/election/observe"]),
    ("v3electionpb.Election/Resign", &["/v3/election/resign"]),
];

/// The methods that can't be called with JSON, each with the reason.
#[cfg(test)]
const WITHOUT: [(&str, &str); 4] = [
    ("etcdserverpb.KV/RangeStream", "etcd has no path for it: it is for clients that have gRPC"),
    ("grpc.health.v1.Health/Check", "gRPC's own; over HTTP there is /health"),
    ("grpc.health.v1.Health/List", "gRPC's own; over HTTP there is /health"),
    ("grpc.health.v1.Health/Watch", "gRPC's own; over HTTP there is /health"),
];

/// A method that can be called with JSON.
#[derive(Debug)]
pub(super) struct Method {
    pub(super) descriptor: MethodDescriptor,
    /// Its path over gRPC.
    pub(super) path: PathAndQuery,
}

impl Method {
    /// Whether the client may send several requests.
    pub(super) fn takes_many(&self) -> bool {
        self.descriptor.is_client_streaming()
    }

    /// Whether there may be several answers.
    pub(super) fn answers_many(&self) -> bool {
        self.descriptor.is_server_streaming()
    }
}

static METHODS: LazyLock<BTreeMap<&str, Method>> = LazyLock::new(|| {
    let pool = DescriptorPool::decode(DESCRIPTORS).expect("the descriptors are generated");
    let all = pool.services().flat_map(|service| service.methods().collect::<Vec<_>>());
    let mut methods = BTreeMap::new();
    for descriptor in all {
        let name = format!("{}/{}", descriptor.parent_service().full_name(), descriptor.name());
        let Some((_, paths)) = PATHS.iter().find(|(method, _)| *method == name) else { continue };
        let path: PathAndQuery = format!("/{name}").parse().expect("a name is a path");
        for alias in *paths {
            methods.insert(*alias, Method { descriptor: descriptor.clone(), path: path.clone() });
        }
    }
    methods
});

/// The method with this path. As in etcd, `/v3beta/` is an older name of `/v3/`.
pub(super) fn method(path: &str) -> Option<&'static Method> {
    match path.strip_prefix("/v3beta/") {
        Some(rest) => METHODS.get(format!("/v3/{rest}").as_str()),
        None => METHODS.get(path),
    }
}

/// All methods, some of them several times.
pub(super) fn all() -> impl Iterator<Item = &'static Method> {
    METHODS.values()
}

/// The path of a method, such as `etcdserverpb.KV/Range`; none if it can't be called with JSON.
#[must_use]
pub fn gateway_path(method: &str) -> Option<&'static str> {
    let (_, paths) = PATHS.iter().find(|(name, _)| *name == method)?;
    paths.first().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_method_has_a_path_or_a_reason_why_it_has_none() {
        let pool = DescriptorPool::decode(DESCRIPTORS).expect("they are generated");
        let mut names: Vec<String> = Vec::new();
        for service in pool.services() {
            names.extend(service.methods().map(|method| format!("{}/{}", service.full_name(), method.name())));
        }
        for name in &names {
            let has_path = PATHS.iter().any(|(method, paths)| method == name && !paths.is_empty());
            let reason = WITHOUT.iter().any(|(method, reason)| method == name && !reason.is_empty());
            assert!(has_path != reason, "{name} needs a path, or a reason why it has none, and not both");
        }
        assert_eq!(names.len(), PATHS.len() + WITHOUT.len(), "a name in a table is no method");
        let paths: usize = PATHS.iter().map(|(_, paths)| paths.len()).sum();
        assert_eq!(METHODS.len(), paths, "each path occurs once");
    }

    #[test]
    fn an_older_name_of_a_path_is_known_too() {
        let name = |path| method(path).map(|method| method.path.as_str());
        assert_eq!(name("/v3beta/kv/range"), Some("/etcdserverpb.KV/Range"));
        assert_eq!(name("/v3/kv/lease/leases"), Some("/etcdserverpb.Lease/LeaseLeases"));
        for path in ["/v3/kv/range/", "/v3/", "/v3beta/v3/kv/range", "/v3alpha/kv/range", ""] {
            assert_eq!(name(path), None, "{path}");
        }
    }
}
