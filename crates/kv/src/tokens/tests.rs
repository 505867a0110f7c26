use bowline_node::raft::Random;

use super::*;

const TTL: Duration = Duration::from_nanos(20);

/// The letters of token number `number`.
fn letters(number: u64) -> String {
    let mut random = Random::new(number);
    let mut bytes = [0; RANDOM_BYTES];
    bytes.chunks_mut(8).for_each(|chunk| chunk.copy_from_slice(&random.next_u64().to_le_bytes()));
    draw(bytes)
}

fn named(user: &str) -> LoggedIn {
    LoggedIn { user: user.into(), at: 3 }
}

fn text(number: u64) -> String {
    format!("{}.{number}", letters(number))
}

/// A table that does everything by looking at every token.
#[derive(Default)]
struct Model {
    /// Number, user and end.
    held: Vec<(u64, u64, Time)>,
}

impl Model {
    fn issue(&mut self, now: Time, number: u64, user: u64, bound: usize) {
        self.held.retain(|(other, _, end)| *end > now && *other != number);
        if self.held.len() == bound {
            let first = self.held.iter().min_by_key(|(number, _, end)| (*end, digest(&letters(*number)))).copied();
            self.held.retain(|token| Some(*token) != first);
        }
        self.held.push((number, user, now.after(TTL)));
    }

    fn user_of(&mut self, now: Time, number: u64) -> Option<u64> {
        let (_, user, end) = self.held.iter_mut().find(|(other, _, end)| *other == number && *end > now)?;
        *end = now.after(TTL);
        Some(*user)
    }
}

#[test]
fn it_does_what_a_table_without_order_does() {
    for seed in 0..300 {
        let mut random = Random::new(seed);
        let bound = 1 + random.below(12) as usize;
        let (mut tokens, mut model, mut now) = (Tokens::new(TTL, bound), Model::default(), Time::ZERO);
        for step in 0..400 {
            now = now.after(Duration::from_nanos(random.below(6)));
            let (number, user) = (random.below(24), random.below(4));
            match random.below(2) {
                0 => {
                    tokens.issue(now, digest(&letters(number)), named(&user.to_string()), number);
                    model.issue(now, number, user, bound);
                }
                _ => {
                    let found = tokens.user_of(now, &text(number));
                    let expected = model.user_of(now, number).map(|user| user.to_string());
                    assert_eq!(found.map(|found| found.user), expected.map(Into::into), "seed {seed}, step {step}");
                }
            }
            let live = model.held.iter().filter(|(_, _, end)| *end > now).count();
            assert!((live..=bound).contains(&tokens.len()), "seed {seed}, step {step}");
            assert_eq!(tokens.ends.len(), tokens.len());
        }
    }
}

#[test]
fn a_use_lets_a_token_live_on() {
    let mut tokens = Tokens::new(TTL, 4);
    tokens.issue(Time(100), digest(&letters(1)), named("ann"), 1);
    for now in [100, 119, 138, 157] {
        assert_eq!(tokens.user_of(Time(now), &text(1)), Some(named("ann")), "at {now}");
    }
    assert_eq!(tokens.user_of(Time(177), &text(1)), None);
    assert_eq!(tokens.user_of(Time(158), &text(1)), None, "it is gone for good");
}

#[test]
fn expired_tokens_do_not_pile_up() {
    let mut tokens = Tokens::new(TTL, 1_000_000);
    for number in 0..1_000_u64 {
        tokens.issue(Time(number), digest(&number.to_string()), named("ann"), number);
    }
    assert_eq!(tokens.len(), 20);
    for _ in 0..10 {
        assert_eq!(tokens.user_of(Time(5_000), "no token"), None);
    }
    assert!(tokens.is_empty());
}

#[test]
fn one_text_is_a_token_and_no_other() {
    let mut tokens = Tokens::new(TTL, 4);
    tokens.issue(Time(0), digest(&letters(7)), named("ann"), 7);
    tokens.issue(Time(0), digest(&letters(0)), named("bob"), 0);
    let (right, plain) = (text(7), letters(7));
    assert!(right.len() <= MAX_BYTES);
    assert_eq!(tokens.user_of(Time(1), &text(0)), Some(named("bob")));
    let others = [
        String::new(),
        ".".to_owned(),
        plain.clone(),
        format!("{plain}."),
        format!(".{plain}"),
        format!("{plain}.8"),
        format!("{plain}.07"),
        format!("{plain}.+7"),
        format!("{plain}.7 "),
        format!(" {plain}.7"),
        format!("{plain}.7.7"),
        format!("{plain}.{}", u128::MAX),
        format!("{}.7", plain.to_lowercase()),
        format!("{}.7", &plain[1..]),
        format!("{plain}a.7"),
        format!("{}.7", "\u{e9}".repeat(8)),
        format!("{}.00", letters(0)),
        "x".repeat(1 << 20),
    ];
    for other in others {
        assert_eq!(tokens.user_of(Time(1), &other), None, "{other:.60}");
    }
    assert_eq!(tokens.user_of(Time(1), &right), Some(named("ann")));
}

#[test]
fn letters_are_equally_likely() {
    assert_eq!(draw([0; RANDOM_BYTES]), "A".repeat(LETTERS));
    assert_eq!(draw([255; RANDOM_BYTES]), "z".repeat(LETTERS));
    let mut half = [0; RANDOM_BYTES];
    half[0] = 128;
    assert_eq!(draw(half), "aAAAAAAAAAAAAAAA", "a half is 26 of 52");
    let mut seen = [[0_u32; 52]; LETTERS];
    for number in 0..10_400 {
        for (place, letter) in letters(number).bytes().enumerate() {
            seen[place][ALPHABET.iter().position(|other| *other == letter).expect("it is a letter")] += 1;
        }
    }
    // 200 each, with a deviation of 14.
    assert!(seen.iter().flatten().all(|count| (120..280).contains(count)), "{seen:?}");
}

#[test]
fn debug_shows_no_secret() {
    let mut tokens = Tokens::new(TTL, 4);
    tokens.issue(Time(0), [0xab; 32], named("ann"), 7);
    assert_eq!(format!("{tokens:?}"), "Tokens { ttl: 20ns, bound: 4, len: 1, .. }");
}
