//! How the figures are shown: as text for scripts, and on a terminal.

use std::cmp::Ordering;
use std::io::Write;
use std::time::Duration;

use ratatui::Frame;
use ratatui::layout::{Constraint, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell as TableCell, Row as TableRow, Table as Widget};

use super::figures::{Figures, Load, Row, State};
use crate::client::{Table, human_size};

/// A column: its title, its width on a terminal, and its cell.
struct Column {
    title: &'static str,
    width: u16,
    cell: Cell,
}

/// How the text of a cell is made.
enum Cell {
    /// For a member only.
    Member(fn(&State) -> String),
    /// For a member, and for all of them together.
    Load(fn(&Load) -> String),
}

impl Cell {
    fn of(&self, state: &State) -> String {
        match self {
            Cell::Member(text) => text(state),
            Cell::Load(text) => text(&state.load),
        }
    }

    fn of_all(&self, totals: &Load) -> String {
        match self {
            Cell::Member(_) => String::new(),
            Cell::Load(text) => text(totals),
        }
    }
}

const fn column(title: &'static str, width: u16, cell: Cell) -> Column {
    Column { title, width, cell }
}

/// Width of the names, which are the first column of both tables.
const NAME: u16 = 14;

/// The name of the row that has the load of all members together.
const ALL: &str = "(all)";

/// What members do.
const WORK: [Column; 7] = [
    column("ROLE", 9, Cell::Member(|state| state.role.to_owned())),
    column("TERM", 6, Cell::Member(|state| state.term.to_string())),
    column("LAG", 7, Cell::Member(|state| count(Some(state.lag as f64)))),
    column("REQ/S", 8, Cell::Load(|load| count(load.requests))),
    column("P50", 8, Cell::Load(|load| time(load.p50))),
    column("P99", 8, Cell::Load(|load| time(load.p99))),
    column("FSYNC P99", 10, Cell::Load(|load| time(load.sync_p99))),
];

/// What members hold.
const STORE: [Column; 8] = [
    column("SIZE", 9, Cell::Member(|state| human_size(state.size))),
    column("IN USE", 9, Cell::Member(|state| human_size(state.in_use))),
    column(
        "QUOTA",
        6,
        Cell::Member(|state| used(state).map_or("-".to_owned(), |used| format!("{:.0}%", used * 100.0))),
    ),
    column("WATCH", 6, Cell::Load(|load| count(load.watchers))),
    column("SLOW", 5, Cell::Load(|load| count(load.slow_watchers))),
    column("LEASES", 6, Cell::Load(|load| count(load.leases))),
    column("CONNS", 6, Cell::Load(|load| count(load.connections))),
    column("VERSION", 8, Cell::Member(|state| state.version.clone())),
];

/// By what the members are sorted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Order {
    #[default]
    Name,
    Requests,
    Latency,
    Lag,
}

impl Order {
    pub(super) fn next(self) -> Order {
        match self {
            Order::Name => Order::Requests,
            Order::Requests => Order::Latency,
            Order::Latency => Order::Lag,
            Order::Lag => Order::Name,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Order::Name => "name",
            Order::Requests => "requests",
            Order::Latency => "p99",
            Order::Lag => "lag",
        }
    }

    /// Sorts the members: the largest number first, and those that do not answer last.
    fn sort(self, rows: &mut [Row]) {
        let number = |row: &Row| {
            let state = row.state.as_ref().ok()?;
            match self {
                Order::Name => None,
                Order::Requests => state.load.requests,
                Order::Latency => state.load.p99,
                Order::Lag => Some(state.lag as f64),
            }
        };
        rows.sort_by(|one, other| {
            let numbers = number(other).partial_cmp(&number(one)).unwrap_or(Ordering::Equal);
            numbers.then_with(|| (&one.name, one.id).cmp(&(&other.name, other.id)))
        });
    }
}

/// How much of its quota a member uses, from 0.
fn used(state: &State) -> Option<f64> {
    state.quota.filter(|quota| *quota > 0).map(|quota| state.size as f64 / quota as f64)
}

/// A count or a rate in at most seven characters.
fn count(value: Option<f64>) -> String {
    match value {
        None => "-".to_owned(),
        Some(value) if value >= 999_950.0 => format!("{:.1}M", value / 1e6),
        Some(value) if value >= 99_999.5 => format!("{:.1}k", value / 1e3),
        Some(value) if value >= 10.0 || value.fract() == 0.0 => format!("{value:.0}"),
        Some(value) => format!("{value:.1}"),
    }
}

/// A time of so many seconds in at most seven characters.
fn time(seconds: Option<f64>) -> String {
    match seconds {
        None => "-".to_owned(),
        Some(seconds) if seconds < 0.01 => format!("{:.2}ms", seconds * 1e3),
        Some(seconds) if seconds < 0.1 => format!("{:.1}ms", seconds * 1e3),
        Some(seconds) if seconds < 1.0 => format!("{:.0}ms", seconds * 1e3),
        Some(seconds) => format!("{seconds:.1}s"),
    }
}

/// Who leads, and how many members answer.
fn headline(figures: &Figures) -> String {
    let leader = match &figures.leader {
        Some(leader) => format!("{leader} leads in term {}", figures.term),
        None => format!("no leader in term {}", figures.term),
    };
    let (up, all) = (figures.reachable(), figures.rows.len());
    format!("cluster {:016x}   {leader}   {up} of {all} members answer", figures.cluster)
}

/// Writes the figures as text.
pub(super) fn write(figures: &Figures, out: &mut dyn Write) -> std::io::Result<()> {
    writeln!(out, "{}", headline(figures))?;
    for alarm in &figures.alarms {
        writeln!(out, "alarm: {alarm}")?;
    }
    let columns: Vec<&Column> = WORK.iter().chain(&STORE).collect();
    let titles: Vec<&str> = ["NAME"].into_iter().chain(columns.iter().map(|column| column.title)).collect();
    let mut table = Table::new(&titles);
    for row in &figures.rows {
        match &row.state {
            Ok(state) => {
                let cells = columns.iter().map(|column| column.cell.of(state));
                table.row([row.name.clone()].into_iter().chain(cells));
            }
            Err(why) => table.row([row.name.clone(), format!("unreachable: {why}")]),
        }
    }
    let totals = columns.iter().map(|column| column.cell.of_all(&figures.totals));
    table.row([ALL.to_owned()].into_iter().chain(totals));
    table.write(out)
}

/// How the view is drawn.
#[derive(Clone, Copy, Debug)]
pub(super) struct View {
    pub(super) order: Order,
    pub(super) colours: bool,
    pub(super) interval: Duration,
}

impl View {
    fn colour(self, colour: Color) -> Style {
        if self.colours { Style::new().fg(colour) } else { Style::new() }
    }

    /// Something that an operator must see, with colours or without.
    fn warning(self) -> Style {
        self.colour(Color::Red).add_modifier(Modifier::BOLD)
    }

    /// Draws the figures. What does not fit is left out: columns from the right, rows from the bottom.
    pub(super) fn draw(self, figures: &Figures, frame: &mut Frame<'_>) {
        let mut rows = figures.rows.clone();
        self.order.sort(&mut rows);
        let (mut left, mut help) = (frame.area(), frame.area());
        left.height = left.height.saturating_sub(1);
        (help.y, help.height) = (left.bottom(), help.height.min(1));
        let mut take = |lines: usize| {
            let height = u16::try_from(lines).unwrap_or(u16::MAX).min(left.height);
            let taken = Rect { height, ..left };
            (left.y, left.height) = (left.y + height, left.height - height);
            taken
        };
        let leads = if figures.leader.is_some() { Style::new().add_modifier(Modifier::BOLD) } else { self.warning() };
        frame.render_widget(Line::styled(headline(figures), leads), take(1));
        for alarm in &figures.alarms {
            frame.render_widget(Line::styled(format!("alarm: {alarm}"), self.warning()), take(1));
        }
        for columns in [&WORK[..], &STORE] {
            take(1);
            // The title, the members, and all of them together.
            self.table(&rows, &figures.totals, columns, frame, take(rows.len() + 2));
        }
        let every = if self.interval.subsec_millis() == 0 {
            format!("{} s", self.interval.as_secs())
        } else {
            format!("{} ms", self.interval.as_millis())
        };
        let keys =
            format!("q quit   s sort by {} (now {})   every {every}", self.order.next().name(), self.order.name());
        frame.render_widget(Span::styled(keys, self.colour(Color::DarkGray)), help);
    }

    fn table(self, rows: &[Row], totals: &Load, columns: &[Column], frame: &mut Frame<'_>, area: Rect) {
        // ratatui would squeeze all columns; whole ones are better.
        let mut width = NAME;
        let fits = |column: &&Column| {
            width += 1 + column.width;
            width <= area.width
        };
        let columns: Vec<&Column> = columns.iter().take_while(fits).collect();
        let titles = ["NAME"].into_iter().chain(columns.iter().map(|column| column.title));
        let head = TableRow::new(titles).style(self.colour(Color::Cyan).add_modifier(Modifier::BOLD));
        let all = [ALL.to_owned()].into_iter().chain(columns.iter().map(|column| column.cell.of_all(totals)));
        let all = TableRow::new(all).style(Style::new().add_modifier(Modifier::BOLD));
        let body = rows.iter().map(|row| self.row(row, &columns)).chain([all]);
        let widths = [NAME].into_iter().chain(columns.iter().map(|column| column.width)).map(Constraint::Length);
        frame.render_widget(Widget::new(body, widths).header(head), area);
        // A reason is longer than a column.
        for (place, row) in (1..).zip(rows) {
            if let Err(why) = &row.state
                && place < area.height
                && area.width > NAME + 1
            {
                let right = Rect { x: area.x + NAME + 1, y: area.y + place, width: area.width - NAME - 1, height: 1 };
                frame.render_widget(Span::styled(format!("unreachable: {why}"), self.warning()), right);
            }
        }
    }

    fn row(self, row: &Row, columns: &[&Column]) -> TableRow<'static> {
        let name = row.name.clone();
        let Ok(state) = &row.state else { return TableRow::new([TableCell::new(name).style(self.warning())]) };
        let leads = if state.role == "leader" { self.colour(Color::Green) } else { Style::new() };
        let cell = |column: &&Column| {
            let strange = match column.title {
                "ROLE" => state.role == "no leader",
                "QUOTA" => used(state).is_some_and(|used| used > 0.8),
                "SLOW" => state.load.slow_watchers.is_some_and(|slow| slow > 0.0),
                _ => false,
            };
            let cell = TableCell::new(column.cell.of(state));
            if strange { cell.style(self.colour(Color::Yellow).add_modifier(Modifier::BOLD)) } else { cell }
        };
        let cells: Vec<TableCell<'_>> = [TableCell::new(name)].into_iter().chain(columns.iter().map(cell)).collect();
        TableRow::new(cells).style(leads)
    }
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::super::figures::tests::sample;
    use super::*;

    fn figures() -> Figures {
        Figures::of(&sample(12, 150), Some(&sample(10, 100)))
    }

    const VIEW: View = View { order: Order::Name, colours: false, interval: Duration::from_secs(1) };

    fn screen(view: View, figures: &Figures, width: u16, height: u16) -> Terminal<TestBackend> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("memory has room");
        terminal.draw(|frame| view.draw(figures, frame)).expect("it is drawn");
        terminal
    }

    fn lines(terminal: &Terminal<TestBackend>) -> Vec<String> {
        let buffer = terminal.backend().buffer();
        let line = |y: u16| (0..buffer.area.width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
        (0..buffer.area.height).map(|y| line(y).trim_end().to_owned()).collect()
    }

    #[test]
    fn everything_fits_into_eighty_columns() {
        let mut figures = figures();
        figures.alarms = vec!["memberID:7 alarm:NOSPACE".to_owned()];
        let expected = [
            "cluster 00000000000000c1   a leads in term 5   2 of 4 members answer",
            "alarm: memberID:7 alarm:NOSPACE",
            "",
            "NAME           ROLE      TERM   LAG     REQ/S    P50      P99      FSYNC P99",
            "4              unreachable: has not started yet",
            "a              leader    5      0       25       0.50ms   0.99ms   9.90ms",
            "b              follower  5      1       50       0.50ms   0.99ms   9.90ms",
            "c              unreachable: connection refused",
            "(all)                                   75       0.50ms   0.99ms   9.90ms",
            "",
            "NAME           SIZE      IN USE    QUOTA  WATCH  SLOW  LEASES CONNS  VERSION",
            "4              unreachable: has not started yet",
            "a              2.0 MiB   1.0 MiB   50%    5      1     2      4      3.6.0",
            "b              2.0 MiB   1.0 MiB   50%    5      1     2      4      3.6.0",
            "c              unreachable: connection refused",
            "(all)                                     10     2     2      8",
            "",
            "",
            "",
            "",
            "",
            "",
            "",
            "q quit   s sort by requests (now name)   every 1 s",
        ];
        let shown = lines(&screen(VIEW, &figures, 80, 24));
        assert_eq!(shown, expected, "{}", shown.join("\n"));
    }

    #[test]
    fn a_narrow_terminal_shows_whole_columns() {
        let shown = lines(&screen(VIEW, &figures(), 40, 12));
        assert_eq!(shown[2], "NAME           ROLE      TERM   LAG");
        assert_eq!(shown[4], "a              leader    5      0");
        assert_eq!(shown[6], "c              unreachable: connection r");
        assert_eq!(shown[11], "q quit   s sort by requests (now name)");
        for (width, height) in [(1, 1), (10, 3), (20, 5), (79, 2), (200, 60)] {
            screen(VIEW, &figures(), width, height);
        }
    }

    #[test]
    fn without_colours_nothing_has_one() {
        let has_colour = |view| {
            let terminal = screen(view, &figures(), 80, 24);
            terminal.backend().buffer().content.iter().any(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset)
        };
        assert!(!has_colour(VIEW) && has_colour(View { colours: true, ..VIEW }));
    }

    #[test]
    fn members_are_sorted_by_what_is_asked_for() {
        let names = |order: Order| {
            let mut rows = figures().rows;
            order.sort(&mut rows);
            rows.into_iter().map(|row| row.name).collect::<String>()
        };
        assert_eq!([names(Order::Name), names(Order::Requests), names(Order::Lag)], ["4abc", "ba4c", "ba4c"]);
        let mut order = Order::Name;
        for _ in 0..4 {
            order = order.next();
        }
        assert_eq!(order, Order::Name);
    }

    #[test]
    fn numbers_are_short() {
        let counts = [0.0, 0.25, 9.96, 10.4, 99_999.0, 100_000.0, 1_234_567.0];
        let shown = counts.map(|value| count(Some(value)));
        assert_eq!(shown, ["0", "0.2", "10.0", "10", "99999", "100.0k", "1.2M"]);
        let times = [0.0001234, 0.0123, 0.123, 1.5, 75.0].map(|seconds| time(Some(seconds)));
        assert_eq!(times, ["0.12ms", "12.3ms", "123ms", "1.5s", "75.0s"]);
        assert_eq!((count(None), time(None)), ("-".to_owned(), "-".to_owned()));
    }

    #[test]
    fn as_text_each_member_has_one_line() {
        let mut out = Vec::new();
        write(&figures(), &mut out).expect("memory takes it");
        let text = String::from_utf8(out).expect("it is text");
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].starts_with("NAME   ROLE") && lines[1].ends_with("CONNS  VERSION"), "{text}");
        assert!(
            lines[2].starts_with("a      leader") && lines[4] == "c      unreachable: connection refused",
            "{text}"
        );
        assert!(lines[6].starts_with("(all) ") && lines.len() == 7, "{text}");
    }
}
