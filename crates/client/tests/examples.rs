//! The examples, at a real cluster.

mod support;

/// Each example is a module here, whose `main` is not used.
macro_rules! examples {
    ($($name:ident $path:literal)*) => {$(
        #[allow(dead_code)]
        #[path = $path]
        mod $name;

        #[tokio::test(flavor = "multi_thread")]
        async fn $name() {
            let cluster = support::Cluster::start(3);
            let endpoints = [1, 2, 3].map(|id| cluster.endpoint(id));
            $name::run(&endpoints.each_ref().map(String::as_str)).await.expect("it succeeds");
        }
    )*};
}

examples! {
    election "../examples/election.rs"
    keys "../examples/keys.rs"
    lease "../examples/lease.rs"
    lock "../examples/lock.rs"
    transaction "../examples/transaction.rs"
    watch "../examples/watch.rs"
}
