//! The four numbers of a box, found in an answer that may have other numbers too.
//!
//! A text is cut into runs: numbers, separators, quotation marks and brackets without any word between them. Within a run, a list is
//! what one pair of brackets holds.

/// A number of a text.
#[derive(Debug, Clone, Copy)]
struct Number {
    /// Its place in the text, in characters.
    at: usize,
    value: f64,
}

/// What a run is made of, and what is between runs.
#[derive(Debug, Clone, Copy)]
enum Piece {
    Number(Number),
    Open,
    Close,
    /// A blank, a comma, a semicolon or a quotation mark.
    Separator,
}

/// The only list of four numbers; none if there is none, or if several lists differ.
pub(crate) fn four_numbers(text: &str) -> Option<[f64; 4]> {
    let chars: Vec<char> = text.chars().collect();
    let numbers = numbers(&chars);
    if let Some(four) = four(&numbers) {
        return Some(four);
    }
    let mut lists = Vec::new();
    for (start, run) in runs(&chars, &numbers) {
        run_lists(&run, is_called_box(&chars[..start]), &mut lists);
    }
    if lists.is_empty() {
        lists = named_lists(&chars, &numbers);
    }
    lists.dedup();
    <[_; 1]>::try_from(lists).ok().map(|[only]| only)
}

/// The values, if they are four.
fn four(numbers: &[Number]) -> Option<[f64; 4]> {
    let values: Vec<f64> = numbers.iter().map(|number| number.value).collect();
    values.try_into().ok()
}

/// Adds the lists of a run.
fn run_lists(run: &[Piece], is_called_box: bool, lists: &mut Vec<[f64; 4]>) {
    let numbers: Vec<Number> =
        run.iter().filter_map(|piece| if let Piece::Number(n) = piece { Some(*n) } else { None }).collect();
    if let Some(four) = four(&numbers) {
        let before = run.iter().take_while(|piece| !matches!(piece, Piece::Number(_)));
        if is_called_box || before.into_iter().any(|piece| matches!(piece, Piece::Open)) {
            lists.push(four);
        }
        return;
    }
    // For each pair of brackets that is open: the numbers in it, and those of the pairs of numbers that it holds.
    let mut open: Vec<(Vec<Number>, Vec<Vec<Number>>)> = vec![Default::default()];
    for piece in run {
        match *piece {
            Piece::Number(number) => open.iter_mut().for_each(|(numbers, _)| numbers.push(number)),
            Piece::Open => open.push(Default::default()),
            Piece::Close if open.len() > 1 => {
                let Some((numbers, pairs)) = open.pop() else { continue };
                lists.extend(four(&numbers).or_else(|| two_pairs(&pairs)));
                if let (2, Some((_, outer))) = (numbers.len(), open.last_mut()) {
                    outer.push(numbers);
                }
            }
            Piece::Close | Piece::Separator => {}
        }
    }
    for (_, pairs) in open {
        lists.extend(two_pairs(&pairs));
    }
}

/// `(1,2),(3,4)`
fn two_pairs(pairs: &[Vec<Number>]) -> Option<[f64; 4]> {
    if pairs.len() == 2 { four(&pairs.concat()) } else { None }
}

/// What brackets hold behind a key that says `box`, words included: `"bbox": {"x1": 1, "y1": 2, "x2": 3, "y2": 4}`.
fn named_lists(chars: &[char], numbers: &[Number]) -> Vec<[f64; 4]> {
    let mut lists = Vec::new();
    let mut open = Vec::new();
    for (at, &c) in chars.iter().enumerate() {
        if is_opening(c) {
            open.push(at);
        } else if is_closing(c) {
            let Some(start) = open.pop() else { continue };
            let inside: Vec<Number> =
                numbers.iter().filter(|number| (start..at).contains(&number.at)).copied().collect();
            if is_called_box(&chars[..start]) {
                lists.extend(four(&inside));
            }
        }
    }
    lists
}

/// Whether the last word before a place says `box`, with nothing but marks between.
fn is_called_box(before: &[char]) -> bool {
    let is_of_word = |c: &&char| c.is_alphanumeric() || **c == '_';
    let word: Vec<char> =
        before.iter().rev().skip_while(|c| !is_of_word(c)).take_while(is_of_word).copied().collect();
    let word: String = word.into_iter().rev().collect();
    word.to_lowercase().contains("box")
}

fn is_opening(c: char) -> bool {
    "[({<".contains(c)
}

fn is_closing(c: char) -> bool {
    "])}>".contains(c)
}

/// The runs of a text, each with the place where it begins.
fn runs(chars: &[char], numbers: &[Number]) -> Vec<(usize, Vec<Piece>)> {
    let mut runs: Vec<(usize, Vec<Piece>)> = vec![(0, Vec::new())];
    let mut numbers = numbers.iter().peekable();
    let mut at = 0;
    while at < chars.len() {
        let c = chars[at];
        let piece = match numbers.next_if(|number| number.at == at) {
            Some(number) => Some(Piece::Number(*number)),
            None if is_opening(c) => Some(Piece::Open),
            None if is_closing(c) => Some(Piece::Close),
            None if c.is_whitespace() || ",;\"'".contains(c) => Some(Piece::Separator),
            None => None,
        };
        at += word_len(&chars[at..]).max(1);
        match (piece, runs.last_mut()) {
            (Some(piece), Some((_, run))) => run.push(piece),
            _ => runs.push((at, Vec::new())),
        }
    }
    runs
}

/// How many characters a word or number has that begins here.
fn word_len(chars: &[char]) -> usize {
    chars.iter().take_while(|&&c| c.is_alphanumeric() || matches!(c, '.' | '-' | '+' | '_')).count()
}

/// The numbers of a text that are not part of a word, as `12`, `-0.5`, `.5`, `1e-3`.
fn numbers(chars: &[char]) -> Vec<Number> {
    let mut numbers = Vec::new();
    let mut at = 0;
    while at < chars.len() {
        let len = word_len(&chars[at..]);
        let piece: String = chars[at..at + len].iter().collect();
        // A full stop behind a number ends a sentence.
        let piece = piece.trim_end_matches('.');
        if piece.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '.' | '-' | '+')) {
            numbers.extend(piece.parse::<f64>().ok().map(|value| Number { at, value }));
        }
        at += len.max(1);
    }
    numbers
}
