//! Locks in Redis, by which replicas agree on the one that computes.

use std::sync::LazyLock;
use std::time::Duration;

use redis::Script;

use super::{RedisTier, millis};
use crate::Key;
use crate::replica::{Leases, Token};
use crate::tier::{TierError, TierFuture};

/// Deletes the lock only if the caller still holds it: it may have run out, and another may hold it by now.
static RELEASE: LazyLock<Script> = LazyLock::new(|| {
    Script::new("if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) else return 0 end")
});

impl RedisTier {
    fn name_of_lock(&self, key: &Key) -> Vec<u8> {
        [self.prefix.as_bytes(), b"lock:", key.as_bytes()].concat()
    }
}

impl Leases for RedisTier {
    fn try_acquire<'a>(
        &'a self,
        key: &'a Key,
        token: Token,
        lease: Duration,
    ) -> TierFuture<'a, Result<bool, TierError>> {
        Box::pin(async move {
            let mut command = redis::cmd("SET");
            command.arg(self.name_of_lock(key)).arg(&token[..]).arg("NX").arg("PX").arg(millis(lease));
            let set: Option<String> =
                command.query_async(&mut self.connection.clone()).await.map_err(TierError::unavailable)?;
            Ok(set.is_some())
        })
    }

    fn release<'a>(&'a self, key: &'a Key, token: Token) -> TierFuture<'a, Result<(), TierError>> {
        Box::pin(async move {
            let mut invocation = RELEASE.key(self.name_of_lock(key));
            invocation.arg(&token[..]);
            invocation.invoke_async(&mut self.connection.clone()).await.map_err(TierError::unavailable)
        })
    }
}
