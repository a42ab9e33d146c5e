//! Captions as words, lower-cased and without punctuation, as the COCO caption evaluation cuts them.
//!
//! The evaluation runs Stanford's Penn Treebank tokenizer and drops the tokens for quotes, `. ? ! , : ; - -- ...`; everything else
//! stays, brackets as `-lrb-`, `-rrb-` and so on. Here are the rules of the treebank that captions need: contractions
//! (`is n't`, `man 's`, `can not`), numbers (`1,000`, `3:30`), words with hyphens and slashes, abbreviations that keep their full
//! stop, signs as tokens of their own. Left out are e-mail and web addresses, phone numbers, emoticons, mark-up and elisions in front of
//! a word (`'em`, `'twas`); symbols beyond U+FFFF (emoji) are dropped, as there. Captions come out equal (`tests/parity`); of
//! random strings of words, numbers and signs about nine in ten do.
//!
//! Source: Marcus, Santorini, Marcinkiewicz, *Building a Large Annotated Corpus of English: The Penn Treebank*, 1993; the rules as
//! they show in the output of Stanford CoreNLP 3.4.1, which pycocoevalcap ships (`-lowerCase`).

/// Abbreviations that keep their full stop anywhere.
const ABBREVIATIONS: &str = "adj adm adv al apr ariz assn aug ave bldg blvd bros calif capt cf cmdr co col conn corp cpl dec dept dr \
    esq est etc ext feb fri ft gen gov hon inc ind intl jan jr jul jun kan lt ltd maj mar md messrs mfg mich minn mo mon mr mrs ms \
    mt neb nev nov oct okla penn ph ph.d pres prof pvt rd rep reps rev sen sep sept sgt sq sr st ste supt tel tenn tex thurs tues \
    univ va vs vt wed wis";

/// Abbreviations that keep it before a number, a comma or a semicolon.
const NUMBER_ABBREVIATIONS: &str = "art ca fig figs no nos op pp";

/// Capitalised words that open a sentence, so that the full stop of an initial before them ends one ("vitamin C. A man").
const SENTENCE_STARTS: &str = "A After An As At But Every He Her Here If In It Many One Other Our She Some So That The Their There \
    These They This Those We What When While You";

/// Single words that are two tokens: the word and where it is cut.
const TWO_TOKENS: [(&str, usize); 6] =
    [("cannot", 3), ("gonna", 3), ("gotta", 3), ("wanna", 3), ("lemme", 3), ("gimme", 3)];

/// What may follow an apostrophe as a token of its own.
const CLITICS: [&str; 6] = ["s", "re", "ve", "ll", "d", "m"];

/// What keeps a word together in front of an apostrophe: o'clock, d'arc, l'eau; and whole words that stay together.
const ELIDED: [&str; 3] = ["d", "l", "o"];
const WITH_APOSTROPHE: [&str; 2] = ["ma'am", "c'mon"];

/// The words of a caption.
///
/// # Examples
/// ```
/// use fwd_eval::tokenise;
/// let words = tokenise("The dog isn't black-and-white; it's Mr. Smith's!");
/// assert_eq!(words, ["the", "dog", "is", "n't", "black-and-white", "it", "'s", "mr.", "smith", "'s"]);
/// ```
pub fn tokenise(text: &str) -> Vec<String> {
    let chars: Vec<char> = text.chars().map(plain_apostrophe).collect();
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < chars.len() {
        let rest = &chars[at..];
        let prefix = usize::from(matches!(rest[0], '#' | '@') && rest.get(1).is_some_and(|&c| is_letter(c)));
        let n_word = word_len(&rest[prefix..]);
        at += if n_word > 0 {
            push_word(&rest[..prefix + n_word], &rest[prefix + n_word..], &mut tokens)
        } else {
            push_sign(rest, &mut tokens)
        };
    }
    tokens
}

fn plain_apostrophe(c: char) -> char {
    if matches!(c, '\u{2018}' | '\u{2019}') { '\'' } else { c }
}

fn is_letter(c: char) -> bool {
    c.is_alphabetic() || matches!(c, '\u{300}'..='\u{36f}')
}

fn is_word_char(c: char) -> bool {
    is_letter(c) || c.is_ascii_digit()
}

/// How many characters at the front pass the test.
fn run(chars: &[char], test: impl Fn(char) -> bool) -> usize {
    chars.iter().take_while(|&&c| test(c)).count()
}

fn lower(chars: &[char]) -> String {
    chars.iter().collect::<String>().to_lowercase()
}

fn listed(list: &str, word: &str) -> bool {
    list.split_whitespace().any(|entry| entry == word)
}

/// The length of a number at the front: `12`, `1,000.5`, `3:30`, `.5`, `-5`; 0 if there is none.
fn number_len(chars: &[char]) -> usize {
    let sign = usize::from(matches!(chars.first(), Some('+' | '-')));
    let digits = |from: usize| run(&chars[from..], |c| c.is_ascii_digit());
    let mut len = sign + digits(sign);
    while matches!(chars.get(len), Some('.' | ',' | ':')) && digits(len + 1) > 0 {
        len += 1 + digits(len + 1);
    }
    if len > sign { len } else { 0 }
}

/// The length of a word or number at the front, up to an apostrophe that ends it or takes part in a contraction.
fn word_len(chars: &[char]) -> usize {
    let mut len = run(chars, is_word_char).max(number_len(chars));
    while len > 0 {
        let (Some(&mark), Some(&after)) = (chars.get(len), chars.get(len + 1)) else { break };
        let before = chars[len - 1];
        let joins = match mark {
            '-' | '/' | '_' | '@' => is_word_char(after),
            '.' | '!' | '?' => is_letter(before) && is_letter(after),
            '&' => before.is_uppercase() && after.is_uppercase(),
            '\'' => keeps_apostrophe(&chars[..len], &chars[len..]),
            _ => false,
        };
        if !joins {
            break;
        }
        len += 1;
        len += run(&chars[len..], is_word_char);
    }
    len
}

fn keeps_apostrophe(word: &[char], rest: &[char]) -> bool {
    let n_after = run(&rest[1..], is_word_char);
    let word = lower(word);
    let after = lower(&rest[1..=n_after]);
    let whole = format!("{word}'{after}");
    let elided = ELIDED.contains(&word.as_str()) && n_after > 0 && !CLITICS.contains(&after.as_str());
    elided || WITH_APOSTROPHE.contains(&whole.as_str())
}

/// Adds a word, cut where it is a contraction, and returns how many characters are used up.
fn push_word(word: &[char], rest: &[char], tokens: &mut Vec<String>) -> usize {
    let text = lower(word);
    if let Some(&(_, cut)) = TWO_TOKENS.iter().find(|(whole, _)| *whole == text) {
        tokens.extend([text[..cut].to_owned(), text[cut..].to_owned()]);
        return word.len();
    }
    if let (Some(stem), ['\'', 't' | 'T', after @ ..]) = (text.strip_suffix('n'), rest)
        && !after.first().is_some_and(|&c| is_word_char(c))
    {
        tokens.extend((!stem.is_empty()).then(|| stem.to_owned()));
        tokens.push("n't".to_owned());
        return word.len() + 2;
    }
    let full_stop = rest.first() == Some(&'.') && keeps_full_stop(&text, &rest[1..]);
    tokens.push(if full_stop { text + "." } else { text });
    word.len() + usize::from(full_stop)
}

/// Whether a full stop belongs to the word before it: an initial, an acronym such as u.s., an abbreviation.
fn keeps_full_stop(word: &str, after: &[char]) -> bool {
    let initials = word.split('.').all(|part| {
        let mut chars = part.chars();
        chars.next().is_some_and(is_letter) && chars.next().is_none()
    });
    let next = &after[run(after, char::is_whitespace)..];
    let n_next = run(next, is_word_char);
    let space_after = next.get(n_next).is_some_and(|c| c.is_whitespace());
    let next: String = next[..n_next].iter().collect();
    if word.chars().count() == 1 && space_after && listed(SENTENCE_STARTS, &next) {
        return false;
    }
    let goes_on = next.starts_with(|c: char| c.is_ascii_digit()) || matches!(after.first(), Some(',' | ';'));
    initials || listed(ABBREVIATIONS, word) || (goes_on && listed(NUMBER_ABBREVIATIONS, word))
}

/// Adds what is neither word nor number, if it counts as a token, and returns how many characters are used up.
fn push_sign(rest: &[char], tokens: &mut Vec<String>) -> usize {
    let exclamation = run(rest, |c| matches!(c, '!' | '?'));
    if exclamation > 1 {
        tokens.push(rest[..exclamation].iter().collect());
        return exclamation;
    }
    let dashes = run(rest, |c| c == '-');
    if dashes > 0 {
        return dashes;
    }
    if rest[0] == '\'' {
        let n_after = run(&rest[1..], is_word_char);
        let clitic = lower(&rest[1..=n_after]);
        if !CLITICS.contains(&clitic.as_str()) {
            return 1;
        }
        tokens.push(format!("'{clitic}"));
        return 1 + n_after;
    }
    let token = match rest[0] {
        '(' => "-lrb-",
        ')' => "-rrb-",
        '[' => "-lsb-",
        ']' => "-rsb-",
        '{' => "-lcb-",
        '}' => "-rcb-",
        '£' => "#",
        '€' => "$",
        '¢' => "cents",
        '"' | '`' | '.' | '?' | '!' | ',' | ':' | ';' | '…' | '“' | '”' | '–' | '—' => return 1,
        c if c.is_whitespace() || c.is_control() || c > '\u{ffff}' => return 1,
        c => {
            tokens.push(c.to_string());
            return 1;
        }
    };
    tokens.push(token.to_owned());
    1
}

#[cfg(test)]
mod tests {
    use super::tokenise;

    fn joined(text: &str) -> String {
        tokenise(text).join(" ")
    }

    #[test]
    fn contractions_are_cut() {
        assert_eq!(joined("couldn't've can't n't it’s dogs' 'he'"), "could n't 've ca n't n't it 's dogs he");
        assert_eq!(joined("five o'clock, ma'am"), "five o'clock ma'am");
        assert_eq!(joined("I CANNOT. It'S"), "i can not it 's");
    }

    #[test]
    fn full_stops_stay_where_they_belong() {
        assert_eq!(joined("Mr. A. of the U.S. Army, St. 5."), "mr. a. of the u.s. army st. 5");
        assert_eq!(joined("Vitamin C. A pill."), "vitamin c a pill");
        assert_eq!(joined("No. 5, no."), "no. 5 no");
    }

    #[test]
    fn numbers_and_signs() {
        assert_eq!(
            joined("$1,000.50 at 3:30pm (50%) -5 +.5"),
            "$ 1,000.50 at 3:30 pm -lrb- 50 % -rrb- -5 +.5"
        );
        assert_eq!(
            joined("1/2 t-shirt -- what?! no... R&B r&b #1 #tag"),
            "1/2 t-shirt what ?! no r&b r & b # 1 #tag"
        );
    }

    #[test]
    fn nothing_is_no_word() {
        assert_eq!(joined(" . \n '' 🎉"), "");
    }
}
