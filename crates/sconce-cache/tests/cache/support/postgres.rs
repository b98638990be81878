//! Tiers and clients of a test's own Postgres.

use sconce_cache::{PostgresConfig, PostgresTier};
pub(crate) use sconce_test_servers::PostgresServer;

pub(crate) trait Clients {
    fn config(&self) -> PostgresConfig;

    async fn tier(&self) -> PostgresTier {
        let tier = PostgresTier::open(&self.config()).expect("a good configuration");
        tier.ping().await.expect("it answers");
        tier
    }

    /// A connection of its own, to look at the store directly.
    async fn client(&self) -> tokio_postgres::Client;
}

impl Clients for PostgresServer {
    fn config(&self) -> PostgresConfig {
        PostgresConfig::new(self.url())
    }

    async fn client(&self) -> tokio_postgres::Client {
        let connected = tokio_postgres::connect(&self.url(), tokio_postgres::NoTls).await;
        let (client, connection) = connected.expect("it answers");
        tokio::spawn(connection);
        client
    }
}
