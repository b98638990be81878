//! Tiers and clients of a test's own Redis.

use sconce_cache::{RedisConfig, RedisTier};
pub(crate) use sconce_test_servers::RedisServer;

pub(crate) trait Clients {
    fn config(&self) -> RedisConfig;

    async fn tier(&self) -> RedisTier {
        let tier = RedisTier::open(&self.config()).expect("a good configuration");
        tier.ping().await.expect("it answers");
        tier
    }

    /// A connection of its own, to look at the store directly.
    fn connection(&self) -> ::redis::Connection;
}

impl Clients for RedisServer {
    fn config(&self) -> RedisConfig {
        RedisConfig { ttl_jitter: 0.0, ..RedisConfig::new(self.url()) }
    }

    fn connection(&self) -> ::redis::Connection {
        let client = ::redis::Client::open(self.url()).expect("an address");
        client.get_connection().expect("it answers")
    }
}
