//! The page: sections of text, tables and figures as HTML. Whatever comes from files is escaped.

use super::chart::Chart;
use super::escape::escape;
use super::picture::Picture;
use super::{draw, palette};
use anyhow::Result;
use std::fmt::Write;

const STYLE: &str = include_str!("style.css");

/// What stands above all sections.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Heading {
    /// The title of the page.
    pub(super) title: String,
    /// What the runs say, in a sentence or two.
    pub(super) verdict: String,
    /// Whether the page is about a run that is not finished, which is marked.
    pub(super) is_unfinished: bool,
    /// What was run, and what was left out.
    pub(super) summary: String,
}

/// A part of the page with a heading.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Section {
    /// Where links point.
    pub(super) id: &'static str,
    /// The heading.
    pub(super) title: &'static str,
    /// What it consists of.
    pub(super) blocks: Vec<Block>,
}

/// What stands in a section.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Block {
    /// A paragraph.
    Text(String),
    /// Points of a list.
    List(Vec<String>),
    /// Terms and what they mean.
    Terms(Vec<(String, String)>),
    /// A table: a head, and rows of as many cells.
    Table(Table),
    /// Figures beside each other.
    Figures(Vec<Figure>),
    /// A heading within the section.
    Heading(String),
    /// Samples beside each other.
    Samples(Vec<Sample>),
}

/// A sample with its picture and its answers.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Sample {
    /// None where the picture is not there.
    pub(super) picture: Option<Picture>,
    /// The name of the record.
    pub(super) name: String,
    /// What became of the answers.
    pub(super) change: String,
    /// What was asked.
    pub(super) question: String,
    /// What is right.
    pub(super) right: String,
    /// The answers that were given, in the order of time.
    pub(super) given: Vec<SampleAnswer>,
}

/// An answer at a moment.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct SampleAnswer {
    /// When it was given.
    pub(super) moment: String,
    /// The answer.
    pub(super) text: String,
    /// Right or wrong, or the score.
    pub(super) mark: String,
}

/// A table; the first column names the rows.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Table {
    /// What it shows.
    pub(super) caption: String,
    /// Names of the columns.
    pub(super) head: Vec<String>,
    /// The cells by row.
    pub(super) rows: Vec<Vec<String>>,
}

/// A chart with its words.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Figure {
    /// Where links point, and the name of its files.
    pub(super) id: String,
    /// The heading.
    pub(super) title: String,
    /// What is seen, and how to read it.
    pub(super) text: String,
    /// The picture in a sentence, for those who do not see it.
    pub(super) alt: String,
    /// The picture.
    pub(super) chart: Chart,
    /// The numbers.
    pub(super) numbers: Table,
}

/// The whole document.
///
/// # Errors
/// If a chart cannot be drawn.
pub(super) fn page(heading: &Heading, sections: &[Section]) -> Result<String> {
    let mut body = String::new();
    for section in sections {
        let _ = writeln!(body, "<section id=\"{0}\" aria-labelledby=\"{0}-title\">", section.id);
        let _ = writeln!(body, "<h2 id=\"{}-title\">{}</h2>", section.id, escape(section.title));
        for block in &section.blocks {
            body += &self::block(block)?;
        }
        body.push_str("</section>\n");
    }
    let links = sections.iter().map(|s| format!("<li><a href=\"#{}\">{}</a></li>", s.id, escape(s.title)));
    let links: String = links.collect();
    let (title, summary, dark) =
        (escape(&heading.title), escape(&heading.summary), palette::dark_css(".chart "));
    let class = if heading.is_unfinished { "verdict unfinished" } else { "verdict" };
    let verdict = escape(&heading.verdict);
    Ok(format!(
        "<!DOCTYPE html>
<html lang=\"en\">
<head>
<meta charset=\"utf-8\">
<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">
<meta name=\"color-scheme\" content=\"light dark\">
<title>{title}</title>
<style>
{STYLE}{dark}</style>
</head>
<body>
<header>
<h1>{title}</h1>
<p class=\"{class}\">{verdict}</p>
<p>{summary}</p>
<nav aria-label=\"Contents\"><ul>{links}</ul></nav>
</header>
<main>
{body}</main>
</body>
</html>
"
    ))
}

fn block(block: &Block) -> Result<String> {
    Ok(match block {
        Block::Text(text) => format!("<p>{}</p>\n", escape(text)),
        Block::List(points) => {
            let points: String = points.iter().map(|point| format!("<li>{}</li>\n", escape(point))).collect();
            format!("<ul>\n{points}</ul>\n")
        }
        Block::Terms(terms) => {
            let terms = terms.iter();
            let terms =
                terms.map(|(t, d)| format!("<div><dt>{}</dt><dd>{}</dd></div>\n", escape(t), escape(d)));
            format!("<dl>\n{}</dl>\n", terms.collect::<String>())
        }
        Block::Table(table) => self::table(table),
        Block::Figures(figures) => {
            let figures = figures.iter().map(figure).collect::<Result<String>>()?;
            format!("<div class=\"figures\">\n{figures}</div>\n")
        }
        Block::Heading(text) => format!("<h3>{}</h3>\n", escape(text)),
        Block::Samples(samples) => {
            let samples = samples.iter().map(sample).collect::<String>();
            format!("<ul class=\"samples\">\n{samples}</ul>\n")
        }
    })
}

fn sample(sample: &Sample) -> String {
    let Sample { picture, name, change, question, right, given } = sample;
    let picture = match picture {
        Some(Picture { uri, width, height }) => format!(
            "<img src=\"{uri}\" width=\"{width}\" height=\"{height}\" alt=\"Picture of {}\">",
            escape(name)
        ),
        None => "<p class=\"no-picture\">no picture</p>".to_owned(),
    };
    let given = given.iter().map(|answer| {
        format!(
            "<div><dt>{}</dt><dd>{} <span class=\"mark\">{}</span></dd></div>\n",
            escape(&answer.moment),
            escape(&answer.text),
            escape(&answer.mark)
        )
    });
    format!(
        "<li>\n<div class=\"picture\">{picture}</div>\n<div>\n<p class=\"change\">{}</p>\n<p class=\"question\">{}</p>\n<dl>\n<div><dt>right answer</dt><dd>{}</dd></div>\n{}</dl>\n<p class=\"name\">{}</p>\n</div>\n</li>\n",
        escape(change),
        escape(question),
        escape(right),
        given.collect::<String>(),
        escape(name)
    )
}

/// The text of a cell. A long path may be broken behind each `/`, because a printed table cannot be scrolled.
fn cell(text: &str) -> String {
    const LONG: usize = 40;
    let is_long = text.split_whitespace().any(|word| word.chars().count() > LONG);
    if is_long { escape(text).replace('/', "/<wbr>") } else { escape(text) }
}

fn table(table: &Table) -> String {
    let cells = |tag: &str, cells: &[String]| -> String {
        cells.iter().map(|text| format!("<{tag}>{}</{}>", cell(text), &tag[..2])).collect()
    };
    let rows = table.rows.iter().map(|row| match row.split_first() {
        Some((name, values)) => {
            format!("<tr><th scope=\"row\">{}</th>{}</tr>\n", cell(name), cells("td", values))
        }
        None => String::new(),
    });
    let caption = escape(&table.caption);
    // A box that scrolls must be reachable from the keyboard.
    format!(
        "<div class=\"scroll\" role=\"region\" aria-label=\"{caption}\" tabindex=\"0\">\n<table style=\"--columns: {}\">\n<caption>{caption}</caption>\n<thead><tr>{}</tr></thead>\n<tbody>\n{}</tbody>\n</table>\n</div>\n",
        table.head.len(),
        cells("th scope=\"col\"", &table.head),
        rows.collect::<String>()
    )
}

fn figure(figure: &Figure) -> Result<String> {
    let Figure { id, title, text, alt, chart, numbers } = figure;
    let svg = draw::inline_svg(chart, alt)?;
    Ok(format!(
        "<figure id=\"{id}\">\n<figcaption><h3>{}</h3><p>{}</p></figcaption>\n{svg}<details><summary>Numbers</summary>\n{}</details>\n</figure>\n",
        escape(title),
        escape(text),
        table(numbers)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_paths_may_be_broken_where_a_folder_ends() {
        assert_eq!(cell("runs/a b/c"), "runs/a b/c");
        let folders = ["a<b", &"x".repeat(20), &"y".repeat(20)].join("/");
        assert_eq!(cell(&folders), format!("a&lt;b/<wbr>{}/<wbr>{}", "x".repeat(20), "y".repeat(20)));
    }

    #[test]
    fn nothing_that_comes_from_a_file_is_markup() {
        let text = "<b>a & \"b\"'\u{1b}";
        assert_eq!(escape(text), "&lt;b&gt;a &amp; &quot;b&quot;&#39;\u{fffd}");
        let table = Table {
            caption: text.to_owned(),
            head: vec![text.to_owned()],
            rows: vec![vec![text.to_owned(), text.to_owned()]],
        };
        let given = SampleAnswer { moment: text.to_owned(), text: text.to_owned(), mark: text.to_owned() };
        let sample = Sample {
            picture: Some(Picture { uri: "data:".to_owned(), width: 1, height: 1 }),
            name: text.to_owned(),
            change: text.to_owned(),
            question: text.to_owned(),
            right: text.to_owned(),
            given: vec![given],
        };
        let blocks = vec![
            Block::Text(text.to_owned()),
            Block::List(vec![text.to_owned()]),
            Block::Terms(vec![(text.to_owned(), text.to_owned())]),
            Block::Table(table),
            Block::Heading(text.to_owned()),
            Block::Samples(vec![sample]),
        ];
        let section = Section { id: "x", title: "X", blocks };
        let (title, verdict, summary) = (text.to_owned(), text.to_owned(), text.to_owned());
        let heading = Heading { title, verdict, is_unfinished: true, summary };
        let page = page(&heading, &[section]).unwrap();
        assert!(!page.contains("<b>") && !page.contains("\"b\"") && !page.contains('\u{1b}'), "{page}");
        assert_eq!(page.matches("&lt;b&gt;").count(), 22, "{page}");
    }
}
