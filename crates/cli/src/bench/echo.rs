//! The echo: a server that answers at once, as a process of its own, so that its processor time is not that of the load
//! generator.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use anyhow::Context;
use clap::Args;
use tokio::net::TcpListener;

use super::size;
use crate::exit::{Exit, NotDone};
use crate::out::tell;

/// Longest line in which the server tells its address, in bytes.
const MAX_LINE: u64 = 100;

/// Serves on a port of its own, which it prints, until its input ends.
#[derive(Args, Debug)]
pub(crate) struct EchoServer {
    /// Size of the values that it answers.
    #[arg(long, default_value = "256", value_name = "BYTES", value_parser = size)]
    value_size: u64,
}

impl EchoServer {
    pub(crate) fn run(self) -> anyhow::Result<Exit> {
        let value_size = usize::try_from(self.value_size).ok().filter(|size| *size <= 16 << 20);
        let value_size = value_size.context("--value-size is too large; allowed: 0 to 16777216")?;
        let runtime =
            tokio::runtime::Builder::new_multi_thread().enable_all().build().context("can't start threads")?;
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.context("can't listen")?;
            tell!("{}", listener.local_addr()?)?;
            let (ends, ended) = tokio::sync::oneshot::channel();
            std::thread::spawn(move || {
                // An error is an end, too.
                let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
                let _ = ends.send(());
            });
            let end = async { drop(ended.await) };
            bowline_bench::echo::serve(listener, value_size, end).await.context("can't serve")?;
            Ok(Exit::Passed)
        })
    }
}

/// A running echo. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Echo {
    /// Its host and port.
    pub(super) address: String,
    child: Child,
}

impl Echo {
    /// Starts this program again as an echo whose values have this size in bytes.
    pub(super) fn start(value_size: u64) -> anyhow::Result<Echo> {
        let program = std::env::current_exe().context("can't find this program")?;
        let mut command = Command::new(program);
        command.args(["bench", "echo-server", "--value-size", &value_size.to_string()]);
        // A group of its own, so that Ctrl-C ends only the measurement.
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
        let child = command.spawn().context("can't start an echo")?;
        let mut echo = Echo { address: String::new(), child };
        let stdout = echo.child.stdout.as_mut().context("the echo has no output")?;
        BufReader::new(stdout.take(MAX_LINE)).read_line(&mut echo.address).context("can't read the echo's address")?;
        echo.address.truncate(echo.address.trim_end().len());
        // It has said why.
        if echo.address.is_empty() { Err(NotDone("the echo did not start".to_owned()).into()) } else { Ok(echo) }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        // One that has ended already needs no end.
        let _ = self.child.kill().and_then(|()| self.child.wait().map(drop));
    }
}
