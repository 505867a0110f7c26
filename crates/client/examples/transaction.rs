//! Moves an amount from one account to another: both change, or none. If somebody else changes one of them at the same
//! time, the comparisons fail, and it reads the accounts again.
//!
//! `cargo run -p bowline-client --example transaction -- ENDPOINTS`

use std::error::Error;
use std::time::Duration;

use bowline_client::{Client, Compare, KeyValue, Op};

fn amount(account: &KeyValue) -> Result<i64, Box<dyn Error>> {
    Ok(std::str::from_utf8(&account.value)?.parse()?)
}

async fn transfer(client: &mut Client, from: &'static str, to: &'static str, sum: i64) -> Result<(), Box<dyn Error>> {
    loop {
        // A transaction that only reads sees both accounts at the same revision.
        let read = client.txn().then(Op::get(from)).then(Op::get(to)).commit().await?;
        let account = |place: usize| read.responses[place].kvs().first().ok_or("there is no such account");
        let (payer, payee) = (account(0)?, account(1)?);
        let rest = amount(payer)? - sum;
        if rest < 0 {
            return Err("the account does not have that much".into());
        }
        let txn = client
            .txn()
            .when(Compare::mod_revision(from).eq(payer.mod_revision))
            .when(Compare::mod_revision(to).eq(payee.mod_revision))
            .then(Op::put(from, rest.to_string()))
            .then(Op::put(to, (amount(payee)? + sum).to_string()));
        // Without .repeatable(): if the first attempt was done, a second one would fail, and the loop would pay twice.
        if txn.commit().await?.succeeded {
            return Ok(());
        }
    }
}

/// Runs the example at these endpoints.
pub(crate) async fn run(endpoints: &[&str]) -> Result<(), Box<dyn Error>> {
    let mut client = Client::new(endpoints, Duration::from_secs(10))?;
    let (ann, bob) = ("example/accounts/ann", "example/accounts/bob");
    client.put(ann, "100").await?;
    client.put(bob, "0").await?;
    transfer(&mut client, ann, bob, 30).await?;
    assert!(transfer(&mut client, ann, bob, 71).await.is_err());
    for (account, expected) in [(ann, 70), (bob, 30)] {
        let has = amount(&client.get(account).await?.ok_or("the account is missing")?)?;
        println!("{account} has {has}");
        assert_eq!(has, expected);
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let endpoints = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:2379".to_owned());
    run(&endpoints.split(',').collect::<Vec<_>>()).await
}
