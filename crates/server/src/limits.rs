//! The limits that clients can reach. Each is counted, and logged at most once a minute with its setting.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::extract::Request;
use prometheus_client::metrics::counter::Counter;
use tracing::warn;

use crate::complaints::Complaints;
use crate::instruments::{Fixed, Labels};

/// A limit that clients can reach. docs/limits.md explains each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    /// Connections of all clients. At the limit, new ones wait.
    Connections,
    /// Connections of one address. More are closed.
    ConnectionsPerAddress,
    /// Bytes of the headers of one request. A request with more is refused.
    HeaderBytes,
}

impl Limit {
    /// In the order of their declaration.
    const ALL: [Limit; 3] = [Limit::Connections, Limit::ConnectionsPerAddress, Limit::HeaderBytes];

    /// Its name as a label of the metric.
    const fn label(self) -> &'static str {
        match self {
            Limit::Connections => "connections",
            Limit::ConnectionsPerAddress => "connections_per_address",
            Limit::HeaderBytes => "header_bytes",
        }
    }

    /// The flag that sets it.
    const fn flag(self) -> &'static str {
        match self {
            Limit::Connections => "--max-connections",
            Limit::ConnectionsPerAddress => "--max-connections-per-address",
            Limit::HeaderBytes => "--max-header-bytes",
        }
    }
}

/// How often each limit was reached.
pub(crate) type LimitCounts = Fixed<Labels<1>, Counter>;

/// All limits, each never reached yet.
pub(crate) fn limit_counts() -> LimitCounts {
    Fixed::new(Limit::ALL.map(|limit| [("limit", limit.label())]), Counter::default)
}

/// Counts and logs limits that were reached. Copies share what they count and what they have logged.
#[derive(Clone, Debug)]
pub(crate) struct Reached {
    counts: LimitCounts,
    complaints: Arc<Complaints>,
}

impl Reached {
    pub(crate) fn new(counts: LimitCounts) -> Reached {
        Reached { counts, complaints: Arc::default() }
    }

    /// Counts a limit that was reached.
    pub(crate) fn count(&self, limit: Limit) {
        self.counts[limit as usize].inc();
    }

    /// Counts it, and logs that a request was refused, unless that was logged less than a minute ago.
    fn refused(&self, limit: Limit, value: usize) {
        self.count(limit);
        let (label, flag) = (limit.label(), limit.flag());
        self.complaints.say(label, |more| {
            warn!(more, "refused a request of a client: the limit {label} is {value}; {flag} sets it");
        });
    }

    /// Counts it, and logs whose connection was closed, unless that was logged less than a minute ago.
    pub(crate) fn closed(&self, limit: Limit, value: usize, address: IpAddr) {
        self.count(limit);
        let (label, flag) = (limit.label(), limit.flag());
        self.complaints.say(label, |more| {
            warn!(%address, more, "closed a connection of a client: the limit {label} is {value}; {flag} sets it");
        });
    }
}

/// Most bytes that the headers of one request may have.
#[derive(Clone, Debug)]
pub(crate) struct HeaderLimit {
    most: usize,
    reached: Reached,
}

impl HeaderLimit {
    pub(crate) fn new(most: usize, reached: Reached) -> HeaderLimit {
        HeaderLimit { most, reached }
    }

    /// Checks the path and the headers of a request, each header with the 32 bytes that HTTP/2 adds (RFC 9113, 6.5.2).
    ///
    /// # Errors
    /// They have too many bytes. The text says how many are allowed, and what sets that.
    pub(crate) fn check(&self, request: &Request) -> Result<(), String> {
        let path = request.uri().path_and_query().map_or(0, |path| path.as_str().len());
        let headers = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 32);
        let bytes = path + headers.sum::<usize>();
        if bytes <= self.most {
            return Ok(());
        }
        self.reached.refused(Limit::HeaderBytes, self.most);
        let (most, flag) = (self.most, Limit::HeaderBytes.flag());
        Err(format!("the headers of the request have {bytes} bytes; allowed: {most}, which {flag} sets"))
    }
}

/// How many connections each address has.
#[derive(Clone, Debug)]
pub(crate) struct Addresses {
    /// Most connections of one address.
    most: usize,
    reached: Reached,
    open: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

impl Addresses {
    /// Each address may have `most` connections, at least 1.
    pub(crate) fn new(most: usize, reached: Reached) -> Addresses {
        Addresses { most, reached, open: Arc::default() }
    }

    pub(crate) fn reached(&self) -> &Reached {
        &self.reached
    }

    /// Takes a place for one more connection of an address. If it has none left, counts and logs that.
    pub(crate) fn enter(&self, address: IpAddr) -> Option<AddressPlace> {
        // An IPv4 client of an IPv6 port has the same address as at an IPv4 port.
        let address = address.to_canonical();
        let mut open = self.locked();
        let count = open.entry(address).or_default();
        if *count >= self.most {
            drop(open);
            self.reached.closed(Limit::ConnectionsPerAddress, self.most, address);
            return None;
        }
        *count += 1;
        drop(open);
        Some(AddressPlace { address, addresses: self.clone() })
    }

    fn leave(&self, address: IpAddr) {
        if let Entry::Occupied(mut count) = self.locked().entry(address) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                // So the table is never larger than the number of connections.
                count.remove();
            }
        }
    }

    fn locked(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        // Each change is complete before the lock is released, even after a panic.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of a connection among those of its address. Dropping it makes room for another one.
#[derive(Debug)]
pub(crate) struct AddressPlace {
    address: IpAddr,
    addresses: Addresses,
}

impl Drop for AddressPlace {
    fn drop(&mut self) {
        self.addresses.leave(self.address);
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    #[test]
    fn each_limit_has_its_place_and_its_row_in_the_documentation() {
        let table = include_str!("../../../docs/limits.md");
        for (place, limit) in Limit::ALL.into_iter().enumerate() {
            assert_eq!(limit as usize, place);
            let row = table.lines().find(|line| line.contains(&format!("`{}`", limit.label())));
            let row = row.unwrap_or_else(|| panic!("docs/limits.md lacks {}", limit.label()));
            assert!(row.contains(&format!("`{}`", limit.flag())), "{row}");
        }
    }

    #[test]
    fn headers_are_measured_with_their_names_and_the_path() {
        let limit = HeaderLimit::new(2 + 1 + 3 + 32, Reached::new(limit_counts()));
        let request = |value: &str| Request::get("/k").header("a", value).body(Body::empty()).expect("a good request");
        assert_eq!(limit.check(&request("123")), Ok(()));
        let told = "the headers of the request have 39 bytes; allowed: 38, which --max-header-bytes sets";
        assert_eq!(limit.check(&request("1234")), Err(told.to_owned()));
        assert_eq!(limit.reached.counts[Limit::HeaderBytes as usize].get(), 1);
    }

    #[test]
    fn an_address_has_its_places_and_no_more_and_is_forgotten_with_its_last() {
        let addresses = Addresses::new(2, Reached::new(limit_counts()));
        let refused = || addresses.reached().counts[Limit::ConnectionsPerAddress as usize].get();
        let [one, mapped, other] =
            ["10.0.0.1", "::ffff:10.0.0.1", "10.0.0.2"].map(|text| text.parse().expect("it is one"));
        let first = addresses.enter(one).expect("there is room");
        let second = addresses.enter(mapped).expect("there is room");
        assert!(addresses.enter(one).is_none());
        assert_eq!(refused(), 1);
        let third = addresses.enter(other).expect("another address has its own places");
        drop(first);
        let fourth = addresses.enter(mapped).expect("there is room again");
        assert_eq!(refused(), 1);
        drop((second, third, fourth));
        assert!(addresses.locked().is_empty());
    }
}
