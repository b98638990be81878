//! Clients as the limits count them: the holder of a token, or an address.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sconce::{Answer, Input};

use crate::error::RequestError;
use crate::rate::RateBucket;

/// Addresses whose rates are counted at a time; further ones share one count until others have been quiet.
const MAX_ADDRESSES: usize = 16_384;
/// Time between two searches for addresses that have been quiet.
const SEARCH_PAUSE: Duration = Duration::from_secs(1);
/// Bytes of text that are counted as a token until the tokens are known.
const BYTES_PER_TOKEN: usize = 4;

/// Bounds on what each client may ask for in a second. A second's worth may come at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ClientRates {
    /// Requests of each client in a second. `None`, the default, is no bound. Too small: clients wait although the devices
    /// are idle. Too large: one client fills the queues.
    pub max_requests_per_second: Option<NonZeroU32>,
    /// Weight of the answers of each client in a second: tokens of texts, items otherwise. `None`, the default, is no bound.
    ///
    /// A request is let in while less than a second's worth is owed, and then counts in full, by its real tokens. Too small
    /// and too large: as for requests.
    pub max_weight_per_second: Option<NonZeroU32>,
}

/// The name of a client, as logs may have it: never its token.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ClientName {
    /// The holder of a token that has this name.
    Token(Arc<str>),
    /// A peer without a token at this address; of IPv6 the network of 64 bits.
    Address(IpAddr),
    /// Peers without a token on Unix sockets.
    Local,
    /// Peers without a token at addresses beyond those that are counted by themselves.
    OtherAddresses,
}

impl fmt::Display for ClientName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token(name) => f.write_str(name),
            Self::Address(address) => address.fmt(f),
            Self::Local => f.write_str("local"),
            Self::OtherAddresses => f.write_str("other addresses"),
        }
    }
}

/// One client, and what it has asked for lately.
#[derive(Debug)]
pub struct Client {
    name: ClientName,
    rates: ClientRates,
    buckets: Mutex<Buckets>,
}

#[derive(Debug)]
struct Buckets {
    requests: Option<RateBucket>,
    weight: Option<RateBucket>,
}

impl Client {
    pub(crate) fn new(name: ClientName, rates: ClientRates) -> Self {
        let buckets = Buckets {
            requests: rates.max_requests_per_second.map(RateBucket::new),
            weight: rates.max_weight_per_second.map(RateBucket::new),
        };
        Self { name, rates, buckets: Mutex::new(buckets) }
    }

    /// The client's name.
    #[must_use]
    pub fn name(&self) -> &ClientName {
        &self.name
    }

    /// Counts a request.
    ///
    /// # Errors
    /// [`RequestError::TooFast`] if the client has asked for too much lately; the request does not count then.
    pub fn begin_request(&self, now: Instant) -> Result<(), RequestError> {
        let mut buckets = self.lock();
        // The weight first: a request that is refused for it must not count.
        buckets.check_weight(now)?;
        let Some(requests) = &mut buckets.requests else { return Ok(()) };
        let max = requests.per_second();
        requests.take(1, now).map_err(|retry_after| RequestError::TooFast {
            what: "requests",
            limit: "max_requests_per_second",
            max,
            retry_after,
        })
    }

    /// Counts the weight of `inputs` by an estimate, which [`WeightCharge::settle`] corrects once the answers are there.
    pub(crate) fn begin_answers(
        self: &Arc<Self>,
        inputs: &[Input],
        now: Instant,
    ) -> Result<Option<WeightCharge>, RequestError> {
        if self.rates.max_weight_per_second.is_none() {
            return Ok(None);
        }
        let estimate = inputs.iter().map(estimate).sum();
        let mut buckets = self.lock();
        buckets.check_weight(now)?;
        if let Some(weight) = &mut buckets.weight {
            weight.add(estimate, now);
        }
        Ok(Some(WeightCharge { client: Arc::clone(self), estimate }))
    }

    fn is_idle(&self, now: Instant) -> bool {
        let buckets = self.lock();
        [&buckets.requests, &buckets.weight].into_iter().flatten().all(|bucket| bucket.is_idle(now))
    }

    fn lock(&self) -> MutexGuard<'_, Buckets> {
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Buckets {
    fn check_weight(&self, now: Instant) -> Result<(), RequestError> {
        let Some(weight) = &self.weight else { return Ok(()) };
        weight.check(now).map_err(|retry_after| RequestError::TooFast {
            what: "tokens or items",
            limit: "max_weight_per_second",
            max: weight.per_second(),
            retry_after,
        })
    }
}

/// The estimated weight of a request that is being answered. If the call is dropped before, the estimate counts.
pub(crate) struct WeightCharge {
    client: Arc<Client>,
    estimate: u64,
}

impl WeightCharge {
    /// Replaces the estimate by the weight of the answers: none if there are none.
    pub(crate) fn settle(self, answers: &[Answer], now: Instant) {
        let weight = answers.iter().map(|answer| answer.tokens.unwrap_or(1) as u64).sum();
        if let Some(bucket) = &mut self.client.lock().weight {
            bucket.take_back(self.estimate);
            bucket.add(weight, now);
        }
    }
}

/// The weight of an input before it is read: about the tokens of a text, else one.
fn estimate(input: &Input) -> u64 {
    let of_bytes = |bytes: usize| (bytes / BYTES_PER_TOKEN + 1) as u64;
    match input {
        Input::Text(text) => of_bytes(text.len()),
        Input::Pair(pair) => pair.iter().map(estimate).sum(),
        Input::Prompted { prompt, text } => of_bytes(prompt.len()) + estimate(text),
        Input::Tokens(ids) => ids.len() as u64,
        _ => 1,
    }
}

/// Clients without a token, by address.
#[derive(Debug)]
pub(crate) struct AnonymousClients {
    rates: ClientRates,
    max: usize,
    local: Arc<Client>,
    others: Arc<Client>,
    by_address: Mutex<ByAddress>,
}

#[derive(Debug, Default)]
struct ByAddress {
    clients: HashMap<IpAddr, Arc<Client>>,
    searched: Option<Instant>,
}

impl AnonymousClients {
    pub(crate) fn new(rates: ClientRates) -> Self {
        Self::of_at_most(MAX_ADDRESSES, rates)
    }

    fn of_at_most(max: usize, rates: ClientRates) -> Self {
        let shared = |name| Arc::new(Client::new(name, rates));
        let (local, others) = (shared(ClientName::Local), shared(ClientName::OtherAddresses));
        Self { rates, max, local, others, by_address: Mutex::default() }
    }

    /// The client at `peer`; `None` stands for a Unix socket.
    pub(crate) fn at(&self, peer: Option<IpAddr>, now: Instant) -> Arc<Client> {
        let Some(address) = peer.map(network) else { return Arc::clone(&self.local) };
        let mut known = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = known.clients.get(&address) {
            return Arc::clone(client);
        }
        if known.clients.len() >= self.max {
            known.forget_idle(now);
        }
        if known.clients.len() >= self.max {
            return Arc::clone(&self.others);
        }
        let client = Arc::new(Client::new(ClientName::Address(address), self.rates));
        known.clients.insert(address, Arc::clone(&client));
        client
    }
}

impl ByAddress {
    fn forget_idle(&mut self, now: Instant) {
        if self.searched.is_some_and(|searched| now.saturating_duration_since(searched) < SEARCH_PAUSE) {
            return;
        }
        self.searched = Some(now);
        // A client of a call in flight may still be charged.
        self.clients.retain(|_, client| Arc::strong_count(client) > 1 || !client.is_idle(now));
    }
}

/// The part of an address that one client cannot choose: all of IPv4, and the network of IPv6.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        IpAddr::V4(address) => address.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn rates(requests: u32, weight: u32) -> ClientRates {
        ClientRates {
            max_requests_per_second: NonZeroU32::new(requests),
            max_weight_per_second: NonZeroU32::new(weight),
        }
    }

    #[test]
    fn requests_beyond_the_rate_are_refused_with_a_time_to_come_back() {
        let (client, now) = (Client::new(ClientName::Token("app".into()), rates(2, 0)), Instant::now());
        assert!(client.begin_request(now).is_ok() && client.begin_request(now).is_ok());
        let error = client.begin_request(now).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the client asks for more than 2 requests a second (max_requests_per_second); send fewer, or this one again later"
        );
        assert_eq!((error.retry_after(), error.is_refusal()), (Some(SECOND / 2), true));
        assert!(client.begin_request(now + SECOND / 2).is_ok());
    }

    #[test]
    fn an_estimate_of_the_weight_counts_at_once_and_nothing_for_requests_that_are_not_answered() {
        let (client, now) = (Arc::new(Client::new(ClientName::Local, rates(0, 10))), Instant::now());
        let texts = |bytes: usize| vec![Input::from("a".repeat(bytes))];
        let charge = client.begin_answers(&texts(400), now).unwrap().unwrap();
        let error = client.begin_answers(&texts(1), now).err().expect("91 tokens too many");
        assert_eq!(error.retry_after(), Some(SECOND * 91 / 10));
        assert!(client.begin_request(now).is_err(), "nor is its body read");
        charge.settle(&[], now);
        assert!(client.begin_request(now).is_ok());
        drop(client.begin_answers(&texts(400), now).unwrap());
        assert!(client.begin_request(now).is_err(), "a call that was broken off may have been computed");
    }

    #[test]
    fn addresses_are_counted_by_themselves_up_to_a_bound_and_quiet_ones_are_forgotten() {
        let (clients, now) = (AnonymousClients::of_at_most(2, rates(1, 0)), Instant::now());
        let at = |address: &str, now| clients.at(Some(address.parse().expect("an address")), now);
        assert_eq!(clients.at(None, now).name(), &ClientName::Local);
        assert!(at("10.0.0.1", now).begin_request(now).is_ok() && at("10.0.0.2", now).begin_request(now).is_ok());
        assert!(at("10.0.0.1", now).begin_request(now).is_err());
        assert_eq!(at("10.0.0.3", now).name(), &ClientName::OtherAddresses, "both are in use");
        let later = now + SECOND;
        assert_eq!(at("10.0.0.3", later).name().to_string(), "10.0.0.3");
        assert_eq!(clients.by_address.lock().unwrap().clients.len(), 1);
    }

    #[test]
    fn a_network_of_ipv6_is_one_client_and_so_is_ipv4_in_both_spellings() {
        let network = |address: &str| network(address.parse().unwrap()).to_string();
        assert_eq!(network("2001:db8:1:2:aaaa::1"), "2001:db8:1:2::");
        assert_eq!((network("::ffff:10.0.0.1"), network("10.0.0.1")), ("10.0.0.1".into(), "10.0.0.1".into()));
    }
}
