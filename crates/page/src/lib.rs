//! The common parts of all HTML pages. A page is one file without network access, in light or dark colours.

use maud::{DOCTYPE, Markup, PreEscaped, Render, html};

/// The colours and the common style rules. A page's own style follows them.
const STYLE: &str = include_str!("page.css");

/// A whole page. Templates escape the special characters of HTML. In `title` and `content`, including attributes, a
/// control character becomes U+FFFD, and a line break or tab becomes a space. `style` and `scripts` are not changed.
pub fn document(title: &str, style: &str, content: &Markup, scripts: &Markup) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (printable(title)) }
                style { (PreEscaped(STYLE)) (PreEscaped(style)) }
            }
            body {
                main { (PreEscaped(printable(&content.0))) }
                (scripts)
            }
        }
        "\n"
    };
    page.into_string()
}

/// A word in a frame. `class` sets the colour: `passed`, `failed`, or a class of the page.
pub fn badge(class: &str, word: &str) -> Markup {
    html! { span class={ "badge " (class) } { (word) } }
}

/// The lines of a `pre`, each followed by a `br`, because [`document`] turns line breaks into spaces.
pub fn lines(lines: impl IntoIterator<Item = impl Render>) -> Markup {
    html! { @for line in lines { (line) br; } }
}

fn printable(text: &str) -> String {
    let replaced = text.chars().map(|character| match character {
        '\n' | '\t' => ' ',
        control if control.is_control() => char::REPLACEMENT_CHARACTER,
        usual => usual,
    });
    replaced.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_can_end_an_element_or_an_attribute() {
        let hostile = "</p>\u{7}<b a='x' \"y\">&amp;\n\u{9b}z";
        let content = html! { p title=(hostile) { (hostile) } pre { (lines(["a", "b"])) } };
        let page = document(hostile, "p {}\n", &content, &html! {});
        let text = "&lt;/p&gt;\u{fffd}&lt;b a='x' &quot;y&quot;&gt;&amp;amp; \u{fffd}z";
        assert!(page.contains(&format!("<title>{text}</title>")), "{page}");
        assert!(page.contains(&format!("<main><p title=\"{text}\">{text}</p><pre>a<br>b<br></pre></main>")), "{page}");
        assert!(page.contains("p {}\n</style>") && page.ends_with("</html>\n"));
    }
}
