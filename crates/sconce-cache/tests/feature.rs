//! The feature cache: prepared inputs, bounded by bytes, prepared once.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::join_all;
use sconce_cache::{Digest, FeatureCache};
use tokio::sync::Notify;

type Words = FeatureCache<Arc<Vec<u8>>, &'static str>;

fn cache(max_bytes: u64) -> Words {
    FeatureCache::new(max_bytes, |feature: &Arc<Vec<u8>>| feature.len()).expect("a good bound")
}

#[tokio::test]
async fn an_input_is_prepared_once_for_each_way_of_preparing() {
    let cache = cache(1 << 20);
    let prepared = AtomicUsize::new(0);
    let prepare = || async {
        prepared.fetch_add(1, Ordering::SeqCst);
        Ok(Arc::new(vec![1]))
    };
    let ways = [Digest::of(b"one"), Digest::of(b"two")];
    for _ in 0..3 {
        for way in ways {
            cache.get_or_prepare(way, b"input", prepare).await.unwrap();
            cache.get_or_prepare(way, b"other", prepare).await.unwrap();
        }
    }
    assert_eq!(prepared.load(Ordering::SeqCst), 4);
    let stats = cache.stats();
    assert_eq!((stats.hits, stats.misses, stats.shared), (8, 4, 0));
}

#[tokio::test]
async fn what_a_blocking_caller_prepared_others_find() {
    let cache = cache(1 << 20);
    let way = Digest::of(b"one");
    assert_eq!(cache.get_or_prepare_blocking(way, b"input", || Err("it is bad")), Err("it is bad"));
    for _ in 0..2 {
        assert_eq!(*cache.get_or_prepare_blocking(way, b"input", || Ok(Arc::new(vec![1]))).unwrap(), [1]);
    }
    let found = cache.get_or_prepare(way, b"input", || async { Err("not asked for") }).await.unwrap();
    assert_eq!(*found, [1]);
    let stats = cache.stats();
    assert_eq!((stats.hits, stats.misses), (2, 2));
}

#[tokio::test]
async fn it_holds_no_more_bytes_than_its_bound() {
    let cache = cache(100_000);
    let way = Digest::of(b"");
    for number in 0..1000_u32 {
        let prepare = || async { Ok(Arc::new(vec![0; 1000])) };
        cache.get_or_prepare(way, &number.to_le_bytes(), prepare).await.unwrap();
    }
    cache.tidy_up();
    let stats = cache.stats();
    assert!(stats.held_bytes <= 100_000, "{stats:?}");
    assert!(stats.held > 50, "{stats:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn those_who_want_it_at_the_same_time_prepare_once() {
    let (cache, prepared) = (Arc::new(cache(1 << 20)), Arc::new(AtomicUsize::new(0)));
    let callers = (0..50).map(|_| {
        let (cache, prepared) = (Arc::clone(&cache), Arc::clone(&prepared));
        tokio::spawn(async move {
            let prepare = || async {
                prepared.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(std::time::Duration::from_millis(30)).await;
                Ok(Arc::new(vec![7]))
            };
            cache.get_or_prepare(Digest::of(b""), b"same", prepare).await
        })
    });
    for answer in join_all(callers).await {
        assert_eq!(*answer.unwrap().unwrap(), [7]);
    }
    assert_eq!(prepared.load(Ordering::SeqCst), 1);
    let stats = cache.stats();
    assert_eq!((stats.misses, stats.hits + stats.shared), (1, 49));
}

#[tokio::test]
async fn who_prepares_and_goes_away_hands_over_and_a_failure_reaches_all_and_is_not_kept() {
    let cache = cache(1 << 20);
    let way = Digest::of(b"");
    let mut leaving = Box::pin(cache.get_or_prepare(way, b"x", || async { pending().await }));
    assert!(futures_util::poll!(&mut leaving).is_pending());
    let go = Notify::new();
    let failing = || {
        cache.get_or_prepare(way, b"x", || async {
            go.notified().await;
            Err("not an image")
        })
    };
    let (mut first, mut second) = (Box::pin(failing()), Box::pin(failing()));
    assert!(futures_util::poll!(&mut first).is_pending());
    assert!(futures_util::poll!(&mut second).is_pending());
    drop(leaving);
    go.notify_one();
    let (first, second) = tokio::join!(first, second);
    assert!(Arc::ptr_eq(&first.unwrap_err(), &second.unwrap_err()));
    assert!(cache.get_or_prepare(way, b"x", || async { Ok(Arc::new(vec![])) }).await.is_ok());
}
