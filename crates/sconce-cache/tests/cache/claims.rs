//! Callers on different terms, and callers that want many values at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sconce_cache::{
    Cache, CacheBuilder, Claim, ClaimOutcome, Failure, FlightTerms, Follower, Key, Leader, MemoryConfig, Source,
    SqliteConfig, SqliteTier, TierConfig,
};
use tokio::sync::Semaphore;

use crate::support::{key, keys, value};

/// The terms of a caller: its patience.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Patience(u8);

#[derive(Debug, Clone, PartialEq)]
enum Fault {
    TooSlow,
    Broken,
}

impl FlightTerms<Fault> for Patience {
    fn would_get(&self, error: &Fault, leader: &Self) -> bool {
        *error == Fault::Broken || self <= leader
    }
}

type Claims<'a> = Vec<Claim<'a, Fault, Patience>>;

fn builder() -> CacheBuilder<Fault, Patience> {
    Cache::builder()
}

fn in_memory() -> Cache<Fault, Patience> {
    builder().memory(MemoryConfig::default()).build().expect("good defaults")
}

async fn claim<'a>(cache: &'a Cache<Fault, Patience>, wanted: &[Key]) -> Claims<'a> {
    let wanted: Vec<(Key, &[Key])> = wanted.iter().map(|key| (*key, &[][..])).collect();
    cache.claim_many(Patience(1), &wanted).await
}

fn leads(claim: Claim<'_, Fault, Patience>) -> Leader<'_, Fault, Patience> {
    match claim {
        Claim::Leads(leader) => leader,
        Claim::Known(answer) => panic!("it is known: {answer:?}"),
        Claim::Waits(_) => panic!("another computes it"),
    }
}

fn waits(claim: Claim<'_, Fault, Patience>) -> Follower<'_, Fault, Patience> {
    match claim {
        Claim::Waits(follower) => follower,
        Claim::Known(answer) => panic!("it is known: {answer:?}"),
        Claim::Leads(_) => panic!("nobody computes it"),
    }
}

fn known(claim: Claim<'_, Fault, Patience>) -> Result<Source, Fault> {
    match claim {
        Claim::Known(answer) => answer.map(|answer| answer.source).map_err(|error| (*error).clone()),
        Claim::Leads(_) => panic!("nobody computes it"),
        Claim::Waits(_) => panic!("another computes it"),
    }
}

#[tokio::test]
async fn an_error_comes_to_those_who_would_get_it_and_the_best_of_the_others_computes_for_the_rest() {
    let (cache, gate) = (Arc::new(in_memory()), Arc::new(Semaphore::new(0)));
    let begun = Arc::new(AtomicUsize::new(0));
    let ask = |patience: u8, outcome: Result<&'static str, Fault>| {
        let (cache, gate, begun) = (Arc::clone(&cache), Arc::clone(&gate), Arc::clone(&begun));
        tokio::spawn(async move {
            begun.fetch_add(1, Ordering::Relaxed);
            let compute = || async move {
                gate.acquire().await.expect("it is not closed").forget();
                outcome.map(value).map_err(Failure::Passing)
            };
            let answer = cache.get_or_compute_on(Patience(patience), key("hot"), &[], compute).await;
            answer.map(|answer| (answer.value, answer.source)).map_err(|error| (*error).clone())
        })
    };
    let mut hurried = vec![ask(1, Err(Fault::TooSlow))];
    tokio::task::yield_now().await;
    hurried.extend((0..100).map(|_| ask(1, Ok("computed by one who need not"))));
    let patient: Vec<_> = (0..100).map(|_| ask(2, Ok("computed by another who need not"))).collect();
    let best = ask(3, Ok("computed"));
    // The test has one thread, so each caller that has begun has reached its wait.
    while begun.load(Ordering::Relaxed) < 202 {
        tokio::task::yield_now().await;
    }
    gate.add_permits(1000);
    for asked in hurried {
        assert_eq!(asked.await.unwrap(), Err(Fault::TooSlow));
    }
    for asked in patient {
        assert_eq!(asked.await.unwrap(), Ok((value("computed"), Source::Shared)));
    }
    assert_eq!(best.await.unwrap(), Ok((value("computed"), Source::Computed)));
    let stats = cache.stats();
    assert_eq!((stats.computed, stats.failed), (1, 1));
}

#[tokio::test]
async fn an_error_that_no_terms_would_have_spared_comes_to_all() {
    let cache = in_memory();
    let failing = || async {
        tokio::task::yield_now().await;
        Err(Failure::Passing(Fault::Broken))
    };
    let (first, second) = tokio::join!(
        cache.get_or_compute_on(Patience(1), key("broken"), &[], failing),
        cache.get_or_compute_on(Patience(9), key("broken"), &[], || async { Ok(value("never")) }),
    );
    assert_eq!((*first.unwrap_err()).clone(), Fault::Broken);
    assert_eq!((*second.unwrap_err()).clone(), Fault::Broken);
}

#[tokio::test]
async fn many_are_looked_up_by_one_operation_for_each_tier_and_what_is_missing_is_led() {
    let directory = tempfile::tempdir().unwrap();
    let open = || SqliteTier::open(&SqliteConfig::new(directory.path().join("cache"))).unwrap();
    let patient = || TierConfig {
        get_budget: Duration::from_mins(1),
        put_budget: Duration::from_mins(1),
        ..TierConfig::default()
    };
    let [stored, remembered, instead, missing] = ["stored", "in memory", "instead", "missing"].map(key);
    {
        let cache = builder().tier(open(), patient()).build().unwrap();
        cache.put(stored, &value("stored"));
        cache.put(instead, &value("instead"));
        cache.shutdown(Duration::from_mins(1)).await;
    }
    let cache = builder().memory(MemoryConfig::default()).tier(open(), patient()).build().unwrap();
    cache.put(remembered, &value("in memory"));
    let others = [key("not there"), instead];
    let wanted: [(Key, &[Key]); 4] = [(missing, &[]), (stored, &[]), (key("other"), &others), (remembered, &[])];
    let mut claims = cache.claim_many(Patience(1), &wanted).await.into_iter();
    let leader = leads(claims.next().unwrap());
    let sources = claims.map(known).collect::<Vec<_>>();
    assert_eq!(sources, [Ok(Source::Tier("sqlite")), Ok(Source::Tier("sqlite")), Ok(Source::Tier("memory"))]);
    let reads: u64 = cache.stats().tiers[1].reads.latency.count;
    assert_eq!(reads, 1);
    let answer = leader.finish(Ok(value("computed"))).unwrap();
    assert_eq!((answer.value, answer.source), (value("computed"), Source::Computed));
    assert_eq!(known(claim(&cache, &[missing]).await.remove(0)), Ok(Source::Tier("memory")));
    assert!(cache.claim_many(Patience(1), &[]).await.is_empty());
}

#[tokio::test]
async fn two_who_claim_each_others_keys_both_get_all_of_them() {
    let cache = in_memory();
    let [a, b, c] = ["a", "b", "c"].map(key);
    let mut one = claim(&cache, &[a, b]).await.into_iter();
    let mut other = claim(&cache, &[c, b, a]).await.into_iter();
    let (one_a, one_b) = (leads(one.next().unwrap()), leads(one.next().unwrap()));
    let (other_c, other_b, other_a) =
        (leads(other.next().unwrap()), waits(other.next().unwrap()), waits(other.next().unwrap()));
    let third = waits(claim(&cache, &[c]).await.remove(0));
    one_a.finish(Ok(value("a"))).unwrap();
    other_c.finish(Ok(value("c"))).unwrap();
    // The first caller goes away with half of its work done.
    drop(one_b);
    match other_b.outcome().await {
        ClaimOutcome::Leads(leader) => _ = leader.finish(Ok(value("b"))).unwrap(),
        ClaimOutcome::Landed(answer) => panic!("nobody computed it: {answer:?}"),
    }
    for follower in [other_a, third] {
        match follower.outcome().await {
            ClaimOutcome::Landed(answer) => assert_eq!(answer.unwrap().source, Source::Shared),
            ClaimOutcome::Leads(_) => panic!("it was computed"),
        }
    }
}

#[tokio::test]
async fn a_bad_input_is_remembered_for_who_claims_it_later() {
    let cache = in_memory();
    leads(claim(&cache, &[key("bad")]).await.remove(0)).finish(Err(Failure::BadInput(Fault::Broken))).unwrap_err();
    assert_eq!(known(claim(&cache, &[key("bad")]).await.remove(0)), Err(Fault::Broken));
}

#[tokio::test]
async fn many_claims_come_back_in_the_order_in_which_they_were_wanted() {
    let cache = in_memory();
    let wanted = keys("order", 100);
    for key in wanted.iter().step_by(3) {
        cache.put(*key, &value("there"));
    }
    for (number, claim) in claim(&cache, &wanted).await.into_iter().enumerate() {
        assert_eq!(matches!(claim, Claim::Known(Ok(_))), number % 3 == 0, "{number}");
    }
}
