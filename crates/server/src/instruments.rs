//! How a set of instruments is declared, and what `prometheus-client` does not have: etcd's bounds of histograms, its
//! counters without a suffix, and families that are found without a look-up.

use std::fmt;
use std::ops::{Deref, Index};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::{EncodeLabelSet, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::{MetricType, TypedMetric, gauge};
use prometheus_client::registry::{Metric, Registry};

/// Declares a struct of instruments: each field with its help, which is its documentation, its type, how it is made
/// (`= ...`, its default without that), and the name of its samples.
macro_rules! instruments {
    (@made) => { Default::default() };
    (@made $made:expr) => { $made };
    (
        $(#[$about:meta])*
        $vis:vis struct $set:ident {
            $($(#[doc = $help:literal])+ $field:ident: $kind:ty $(= $made:expr)?, $name:literal;)+
        }
    ) => {
        $(#[$about])*
        #[derive(Debug)]
        $vis struct $set {
            $($(#[doc = $help])+ $vis $field: $kind,)+
        }

        impl Default for $set {
            fn default() -> $set {
                $set { $($field: $crate::instruments::instruments!(@made $($made)?),)+ }
            }
        }

        impl $set {
            /// Registers all instruments.
            $vis fn register(&self, registry: &mut prometheus_client::registry::Registry) {
                $($crate::instruments::register(registry, $name, concat!($($help),+), &self.$field);)+
            }
        }
    };
}
pub(crate) use instruments;

/// Registers an instrument by the name of its samples.
pub(crate) fn register(registry: &mut Registry, name: &str, help: &str, instrument: &(impl Metric + Clone)) {
    // The registry ends each help with a full stop.
    let help = help.trim().trim_end_matches('.');
    registry.register(family_name(name, instrument.metric_type()), help, instrument.clone());
}

/// The name of a family, by that of its samples: OpenMetrics adds a suffix to those of a counter.
pub(crate) fn family_name(samples: &str, kind: MetricType) -> &str {
    match kind {
        MetricType::Counter => samples.strip_suffix("_total").expect("a counter's samples end in _total"),
        _ => samples,
    }
}

/// A gauge that is never negative.
pub(crate) type Gauge = gauge::Gauge<u64, AtomicU64>;

/// A fixed set of labels.
pub(crate) type Labels<const COUNT: usize> = [(&'static str, &'static str); COUNT];

/// A histogram of times in seconds: the first bound is 100 us, each next one twice as long.
pub(crate) fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(1e-4, 2.0, 17))
}

/// The same in milliseconds.
pub(crate) fn milliseconds() -> Histogram {
    Histogram::new(exponential_buckets(0.1, 2.0, 17))
}

/// A counter of etcd's whose name lacks the suffix `_total`. OpenMetrics knows none: there its type is unknown.
#[derive(Clone, Debug, Default)]
pub struct Unsuffixed(Counter);

impl Deref for Unsuffixed {
    type Target = Counter;

    fn deref(&self) -> &Counter {
        &self.0
    }
}

impl TypedMetric for Unsuffixed {}

impl EncodeMetric for Unsuffixed {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        // A gauge's sample is the one without a suffix.
        encoder.encode_gauge(&self.get())
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

/// A family whose labels are all known at the start. An instrument is found by its place: a [`Family`] would look it up
/// by its labels, under a lock.
///
/// [`Family`]: prometheus_client::metrics::family::Family
#[derive(Clone, Debug)]
pub struct Fixed<L, M>(Arc<[(L, M)]>);

impl<L, M> Fixed<L, M> {
    pub(crate) fn new(labels: impl IntoIterator<Item = L>, make: impl Fn() -> M) -> Fixed<L, M> {
        Fixed(labels.into_iter().map(|labels| (labels, make())).collect())
    }
}

impl<L, M> Index<usize> for Fixed<L, M> {
    type Output = M;

    fn index(&self, place: usize) -> &M {
        &self.0[place].1
    }
}

impl<L: EncodeLabelSet, M: EncodeMetric + TypedMetric> EncodeMetric for Fixed<L, M> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(labels, instrument)| instrument.encode(encoder.encode_family(labels)?))
    }

    fn metric_type(&self) -> MetricType {
        M::TYPE
    }
}
