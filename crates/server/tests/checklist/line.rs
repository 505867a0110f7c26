//! A line of the checklist: its test, or why it has none.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use libtest_mimic::{Completion, Failed, Trial};

use crate::site::{Site, Target};

/// Where a line is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// On the server that all share, with keys of its own.
    Shared,
    /// On a new server, whose store is empty.
    Fresh,
    /// On three new members of ours: what takes members to stop or to compare.
    Members,
}

type Check = Box<dyn Fn(Site) -> Pin<Box<dyn Future<Output = ()>>> + Send + Sync>;

pub(crate) struct Line {
    pub(crate) name: &'static str,
    place: Place,
    /// Settings of a server of its own, with the names that etcd and ours share.
    settings: &'static [(&'static str, &'static str)],
    check: Option<Check>,
    /// Whom it is not for, and why.
    exceptions: Vec<(Who, &'static str)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Everyone,
    Etcd,
    Etcd34,
}

impl Line {
    pub(crate) fn new<F>(name: &'static str, place: Place, check: fn(Site) -> F) -> Line
    where
        F: Future<Output = ()> + 'static,
    {
        let check: Check = Box::new(move |site| Box::pin(check(site)));
        Line { name, place, settings: &[], check: Some(check), exceptions: Vec::new() }
    }

    /// A line that has no test.
    pub(crate) fn untested(name: &'static str, why: &'static str) -> Line {
        Line { name, place: Place::Shared, settings: &[], check: None, exceptions: vec![(Who::Everyone, why)] }
    }

    /// A server of its own gets these settings.
    pub(crate) fn with(self, settings: &'static [(&'static str, &'static str)]) -> Line {
        Line { settings, ..self }
    }

    /// A real etcd is not asked.
    pub(crate) fn not_on_etcd(self, why: &'static str) -> Line {
        self.except(Who::Etcd, why)
    }

    /// An etcd of version 3.4 is not asked.
    pub(crate) fn not_on_3_4(self, why: &'static str) -> Line {
        self.except(Who::Etcd34, why)
    }

    fn except(mut self, who: Who, why: &'static str) -> Line {
        self.exceptions.push((who, why));
        self
    }

    fn exception(&self, target: &Target) -> Option<&'static str> {
        let applies = |who| match who {
            Who::Everyone => true,
            Who::Etcd => !target.is_ours(),
            Who::Etcd34 => target.is_3_4(),
        };
        let stated = self.exceptions.iter().find(|(who, _)| applies(*who)).map(|(_, why)| *why);
        stated.or_else(|| target.lacks(self.place))
    }

    pub(crate) fn into_trial(self, target: Option<Arc<Target>>) -> Trial {
        Trial::ignorable_test(self.name, move || {
            let target = target.as_ref().ok_or("nobody is there to be asked")?;
            if let Some(why) = self.exception(target) {
                return Ok(Completion::ignored_with(why));
            }
            let check = self.check.as_ref().ok_or("a line without a test has its reason")?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async { check(target.site(self.place, self.settings, self.name).await).await });
            Ok::<_, Failed>(Completion::Completed)
        })
    }
}

/// A line by the name of its function: where it is tried, and the function.
macro_rules! line {
    ($place:ident, $check:ident) => {
        $crate::line::Line::new(stringify!($check), $crate::line::Place::$place, $check)
    };
}
pub(crate) use line;
