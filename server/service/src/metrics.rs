//! What the service counts and measures, for Prometheus.
//!
//! Labels have few values: routes as they are described, methods, statuses. Nothing is
//! counted by Volume, path or token, which are many, and not for everybody's eyes.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

/// One kind of answer to one kind of request.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Answer {
    pub(crate) method: String,
    /// The route's template; `none` for what there is not.
    pub(crate) route: String,
    pub(crate) status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Asked {
    method: String,
    route: String,
}

/// All of it. Clones count together.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    registry: std::sync::Arc<Registry>,
    requests: Family<Answer, Counter>,
    durations: Family<Asked, Histogram, fn() -> Histogram>,
    entries: Counter,
    commits: Counter,
    failed_commits: Counter,
    commit_duration: Histogram,
    jobs: Histogram,
    conflicts: Counter,
    hot: Gauge<i64>,
    streams: Gauge<i64>,
    started: Gauge<f64, AtomicU64>,
}

/// From a quarter of a millisecond to eight seconds.
fn durations() -> Histogram {
    Histogram::new(exponential_buckets(0.000_25, 2.0, 16))
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Default::default(),
            requests: Family::default(),
            durations: Family::new_with_constructor(durations),
            entries: Counter::default(),
            commits: Counter::default(),
            failed_commits: Counter::default(),
            commit_duration: durations(),
            jobs: Histogram::new(exponential_buckets(1.0, 2.0, 9)),
            conflicts: Counter::default(),
            hot: Gauge::default(),
            streams: Gauge::default(),
            started: Gauge::default(),
        };
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        metrics.started.set(since.unwrap_or_default().as_secs_f64());
        metrics.registry = metrics.register().into();
        metrics
    }
}

impl Metrics {
    fn register(&self) -> Registry {
        let mut all = Registry::with_prefix("s0");
        let version =
            [("version", env!("CARGO_PKG_VERSION"))].map(|(k, v)| (k.to_owned(), v.to_owned()));
        all.register("build", "The program", Info::new(Vec::from(version)));
        all.register_with_unit(
            "start_time",
            "When it started, since 1970",
            Unit::Seconds,
            self.started.clone(),
        );
        all.register("http_requests", "Requests that were answered", self.requests.clone());
        all.register_with_unit(
            "http_request_duration",
            "From a request to the head of its answer",
            Unit::Seconds,
            self.durations.clone(),
        );
        all.register("journal_entries", "Entries that were committed", self.entries.clone());
        all.register("journal_commits", "Transactions that were committed", self.commits.clone());
        all.register(
            "journal_commits_failed",
            "Transactions that failed, or of which that is not known",
            self.failed_commits.clone(),
        );
        all.register_with_unit(
            "journal_commit_duration",
            "How long a transaction took",
            Unit::Seconds,
            self.commit_duration.clone(),
        );
        all.register(
            "journal_jobs",
            "How many requests were committed together",
            self.jobs.clone(),
        );
        all.register("conflicts", "Conflicts that were recorded", self.conflicts.clone());
        all.register("hot_volumes", "Volumes in memory", self.hot.clone());
        all.register("streams", "Streams and watches that are open", self.streams.clone());
        all
    }

    /// Counts an answer.
    pub(crate) fn answered(&self, answer: &Answer, took: Duration) {
        let asked = Asked { method: answer.method.clone(), route: answer.route.clone() };
        self.durations.get_or_create(&asked).observe(took.as_secs_f64());
        self.requests.get_or_create(answer).inc();
    }

    /// Counts a transaction of so many jobs that brought so much.
    pub(crate) fn committed(&self, jobs: usize, entries: usize, conflicts: usize, took: Duration) {
        self.commits.inc();
        self.entries.inc_by(entries as u64);
        self.conflicts.inc_by(conflicts as u64);
        self.jobs.observe(jobs as f64);
        self.commit_duration.observe(took.as_secs_f64());
    }

    /// Counts a transaction that failed.
    pub(crate) fn commit_failed(&self) {
        self.failed_commits.inc();
    }

    /// Notes a stream for as long as what is given lives.
    pub(crate) fn stream(&self) -> Open {
        self.streams.inc();
        Open(self.streams.clone())
    }

    /// The text that Prometheus reads, with so many Volumes in memory.
    pub(crate) fn text(&self, hot: usize) -> String {
        self.hot.set(i64::try_from(hot).unwrap_or(i64::MAX));
        let mut out = String::new();
        // Writing into memory does not fail.
        let _ = text::encode(&mut out, &self.registry);
        out
    }
}

/// An open stream.
#[derive(Debug)]
pub(crate) struct Open(Gauge<i64>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}
