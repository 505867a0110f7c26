//! Entry for a fuzzer: hostile bytes in place of a client's request.

use bowline_api::{Message, etcdserverpb as pb};
use bowline_kv::store::{
    Change, Command, CompactionRequest, LeaseGrantRequest, LeaseRevokeRequest, LeaseTimeToLiveRequest, Limits,
    MemoryEngine, Query, Store, decode_reply_to,
};
use bowline_node::StateMachine;
use bowline_node::raft::Index;
use tonic::Status;

use super::convert;

/// Processes requests as a server does, without sockets and threads: decodes, converts and checks them, encodes and
/// applies commands, and encodes the answers. Each piece of `data` is a request: a byte for the method, two for the
/// length, and the message. This must never panic.
pub fn fuzz_requests(data: &[u8]) {
    let mut store = Store::open(MemoryEngine::default()).expect("an empty memory can be read");
    let (mut rest, mut index) = (data, 0);
    while let [method, low, high, tail @ ..] = rest {
        let length = usize::from(u16::from_le_bytes([*low, *high])).min(tail.len());
        let (message, tail) = tail.split_at(length);
        rest = tail;
        index += 1;
        // A refusal is a valid answer.
        let _ = serve(&mut store, index, *method, message);
    }
}

/// Serves one request. Returns the encoded answer.
fn serve(store: &mut Store<MemoryEngine>, index: u64, method: u8, message: &[u8]) -> Result<Vec<u8>, Status> {
    let unreadable = |error: bowline_api::DecodeError| Status::invalid_argument(error.to_string());
    let header = pb::ResponseHeader::default();
    Ok(match method % 8 {
        0 => {
            let range = convert::range(pb::RangeRequest::decode(message).map_err(unreadable)?);
            convert::range_response(header, ask(store, &range)?).encode_to_vec()
        }
        1 => {
            let put = convert::put(pb::PutRequest::decode(message).map_err(unreadable)?);
            convert::put_response(header, write(store, index, put)?).encode_to_vec()
        }
        2 => {
            let delete = convert::delete_range(pb::DeleteRangeRequest::decode(message).map_err(unreadable)?);
            convert::delete_response(header, write(store, index, delete)?).encode_to_vec()
        }
        3 => {
            let txn = convert::txn(pb::TxnRequest::decode(message).map_err(unreadable)?)?;
            let response = if txn.is_read_only() { ask(store, &txn)? } else { write(store, index, txn)? };
            convert::txn_response(header, response).encode_to_vec()
        }
        4 => {
            let request = pb::CompactionRequest::decode(message).map_err(unreadable)?;
            let pb::CompactionRequest { revision, physical } = request;
            write(store, index, CompactionRequest { revision, physical }).map(|_| Vec::new())?
        }
        5 => {
            let pb::LeaseGrantRequest { id, ttl } = pb::LeaseGrantRequest::decode(message).map_err(unreadable)?;
            write(store, index, LeaseGrantRequest { id, ttl }).map(|_| Vec::new())?
        }
        6 => {
            let id = pb::LeaseRevokeRequest::decode(message).map_err(unreadable)?.id;
            write(store, index, LeaseRevokeRequest { id }).map(|_| Vec::new())?
        }
        _ => {
            let request = pb::LeaseTimeToLiveRequest::decode(message).map_err(unreadable)?;
            let pb::LeaseTimeToLiveRequest { id, keys } = request;
            ask(store, &LeaseTimeToLiveRequest { id, keys }).map(|_| Vec::new())?
        }
    })
}

fn write<C: Change>(store: &mut Store<MemoryEngine>, index: u64, change: C) -> Result<C::Response, Status> {
    let command: Command = change.into();
    command.check(&Limits::default()).map_err(super::errors::of_store)?;
    let bytes = command.to_bytes();
    assert_eq!(bytes.len(), command.encoded_len());
    let before = store.revision();
    let answer = decode_reply_to::<C>(store.apply(Index(index), &bytes)).expect("an own answer can be read");
    assert!(answer.is_ok() || store.revision() == before, "what is refused changes nothing");
    assert!(store.revision() - before <= 1, "a write takes one revision at most");
    answer.map(|(response, _)| response).map_err(super::errors::of_store)
}

fn ask<Q: Query>(store: &Store<MemoryEngine>, query: &Q) -> Result<Q::Answer, Status> {
    query.check(&Limits::default()).map_err(super::errors::of_store)?;
    store.ask(query).map_err(super::errors::of_store)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(method: u8, message: &impl Message) -> Vec<u8> {
        let bytes = message.encode_to_vec();
        let length = u16::try_from(bytes.len()).expect("it is short").to_le_bytes();
        [&[method, length[0], length[1]], &bytes[..]].concat()
    }

    #[test]
    fn good_requests_get_through() {
        let put = pb::PutRequest { key: "k".into(), value: "v".into(), ..pb::PutRequest::default() };
        let mut store = Store::open(MemoryEngine::default()).expect("it is empty");
        assert!(serve(&mut store, 1, 1, &put.encode_to_vec()).is_ok());
        assert_eq!(store.revision(), 2);
        let range = pb::RangeRequest { key: "k".into(), ..pb::RangeRequest::default() };
        let answer = serve(&mut store, 2, 0, &range.encode_to_vec()).expect("it is read");
        let answer = pb::RangeResponse::decode(&answer[..]).expect("it is one");
        assert_eq!(&answer.kvs[0].value[..], b"v");
        fuzz_requests(&[piece(1, &put), piece(0, &range), vec![4, 0, 0], vec![3, 200, 0, 1]].concat());
    }
}
