//! gRPC's reflection: clients such as grpcurl ask which services and messages there are.

use bowline_api::etcdserverpb as pb;
use prost_types::FileDescriptorProto;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_reflection::pb::{v1, v1alpha};

use crate::harness::Cluster;

/// Asks one version of the service. Both have the same messages.
macro_rules! asks {
    ($channel:expr, $version:ident) => {{
        use $version::server_reflection_client::ServerReflectionClient;
        use $version::server_reflection_request::MessageRequest;
        use $version::server_reflection_response::MessageResponse;
        let mut client = ServerReflectionClient::new($channel.clone());
        let mut ask = async |request| {
            let request = $version::ServerReflectionRequest { host: String::new(), message_request: Some(request) };
            let answers = client.server_reflection_info(tokio_stream::iter([request])).await.expect("a stream");
            let answer = answers.into_inner().message().await?.expect("an answer");
            Ok::<_, Status>(answer.message_response.expect("it says something"))
        };
        let Ok(MessageResponse::ListServicesResponse(list)) = ask(MessageRequest::ListServices(String::new())).await
        else {
            panic!("a list of services was asked for");
        };
        let mut names: Vec<String> = list.service.into_iter().map(|service| service.name).collect();
        names.sort();
        assert_eq!(names, SERVICES);
        for symbol in ["etcdserverpb.KV", "etcdserverpb.KV.Put", "etcdserverpb.PutRequest"] {
            let found = ask(MessageRequest::FileContainingSymbol(symbol.to_owned())).await;
            let Ok(MessageResponse::FileDescriptorResponse(files)) = found else { panic!("{symbol}: {found:?}") };
            is_kv(&files.file_descriptor_proto);
        }
        for symbol in SERVICES {
            let found = ask(MessageRequest::FileContainingSymbol(symbol.to_owned())).await;
            assert!(matches!(found, Ok(MessageResponse::FileDescriptorResponse(_))), "{symbol}: {found:?}");
        }
        let unknown = ask(MessageRequest::FileContainingSymbol("etcdserverpb.Nothing".to_owned())).await;
        assert_eq!(unknown.expect_err("there is no such symbol").code(), Code::NotFound);
    }};
}

const SERVICES: [&str; 11] = [
    "etcdserverpb.Auth",
    "etcdserverpb.Cluster",
    "etcdserverpb.KV",
    "etcdserverpb.Lease",
    "etcdserverpb.Maintenance",
    "etcdserverpb.Watch",
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
    "v3electionpb.Election",
    "v3lockpb.Lock",
];

fn is_kv(files: &[Vec<u8>]) {
    let files: Vec<FileDescriptorProto> =
        files.iter().map(|file| bowline_api::Message::decode(file.as_slice()).expect("it is a descriptor")).collect();
    let file = files.iter().find(|file| file.name() == "kv.proto").expect("the file with the symbol");
    assert_eq!(file.package(), "etcdserverpb");
    let service = file.service.iter().find(|service| service.name() == "KV").expect("the service");
    let methods: Vec<&str> = service.method.iter().map(|method| method.name()).collect();
    assert_eq!(methods, ["Range", "RangeStream", "Put", "DeleteRange", "Txn", "Compact"]);
    assert_eq!(service.method[2].input_type(), ".etcdserverpb.PutRequest");
}

#[tokio::test]
async fn services_and_messages_are_told_in_both_versions() {
    let cluster = Cluster::start(1, &[]);
    let leader = cluster.leader().await;
    let channel: Channel = cluster.channel(leader).await;
    asks!(channel, v1);
    asks!(channel, v1alpha);
    // The member goes on to serve.
    let mut kv = pb::kv_client::KvClient::new(channel);
    kv.range(crate::harness::get("k")).await.expect("read");
}
