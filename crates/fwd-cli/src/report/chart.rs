//! The kinds of charts, and what each is made of: data that [`draw`](super::draw) draws.

/// What is drawn: one of the kinds of charts that the report has.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Chart {
    /// Values over a sequence.
    Lines(Lines),
    /// One value with its interval for each of some names.
    Dots(Dots),
    /// A matrix of colours with a value in each cell.
    Heat(Heat),
}

/// Lines over an axis.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Lines {
    /// The horizontal axis.
    pub(super) x: Axis,
    /// The vertical axis.
    pub(super) y: Axis,
    /// The lines, drawn in this order.
    pub(super) series: Vec<Series>,
}

/// An axis with its title and its ends.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Axis {
    /// What it shows, with its unit.
    pub(super) title: String,
    /// How it is divided.
    pub(super) scale: Scale,
}

/// How an axis is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scale {
    /// Values lie evenly along the axis.
    Linear,
    /// Evenly, labelled at whole numbers only.
    Whole,
    /// By powers of ten.
    Log,
}

/// A line through points, with a name in the legend.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Series {
    /// The name in the legend.
    pub(super) name: String,
    /// Its number, for colour and marker.
    pub(super) number: usize,
    /// Its points from left to right.
    pub(super) points: Vec<Point>,
}

/// A point of a line.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Point {
    /// Where it lies.
    pub(super) x: f64,
    /// The value that the dot stands at.
    pub(super) y: f64,
    /// The ends of the value's interval; both the value itself if there is none.
    pub(super) ends: (f64, f64),
}

/// One value for each of some names.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Dots {
    /// The axis of values.
    pub(super) axis: Axis,
    /// The rows from the top.
    pub(super) rows: Vec<DotRow>,
    /// A value that the axis must reach and that is marked by a line.
    pub(super) mark: Option<f64>,
}

/// A row of dots with an interval each.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct DotRow {
    /// The name at the left of the row.
    pub(super) name: String,
    /// Its number, for colour and marker.
    pub(super) number: usize,
    /// The value in the middle of the interval.
    pub(super) value: f64,
    /// The ends of its interval; both the value itself if there is none.
    pub(super) ends: (f64, f64),
    /// The single values of which it is the mean.
    pub(super) singles: Vec<f64>,
    /// The value in words.
    pub(super) text: String,
}

/// A matrix as cells.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Heat {
    /// Names of the rows.
    pub(super) rows: Vec<String>,
    /// Names of the columns.
    pub(super) columns: Vec<String>,
    /// The values, by row; none leaves a cell empty.
    pub(super) cells: Vec<Vec<Option<f64>>>,
    /// What the values are, with their unit.
    pub(super) title: String,
    /// What the columns are.
    pub(super) column_title: String,
    /// The values of the first and the last colour.
    pub(super) range: (f64, f64),
    /// Digits behind the point.
    pub(super) digits: usize,
    /// Cells with an edge: row and column.
    pub(super) framed: Vec<(usize, usize)>,
}

impl Axis {
    /// One with this title.
    pub(super) fn new(title: impl Into<String>, scale: Scale) -> Self {
        Self { title: title.into(), scale }
    }

    /// Where a value lies on the axis: logarithms for powers of ten, of which nothing below 1e-12 is told apart.
    pub(super) fn place(&self, value: f64) -> f64 {
        if self.scale == Scale::Log { value.max(1e-12).log10() } else { value }
    }

    /// The label of a place; empty where there is none.
    pub(super) fn label(&self, place: f64) -> String {
        let whole = place.round();
        let is_whole = (place - whole).abs() < 1e-6;
        match self.scale {
            Scale::Linear if is_whole && whole.abs() >= 10_000.0 => group_digits(whole),
            // Rounded first, so that no sum of steps shows its last bits.
            Scale::Linear => format!("{}", (place * 1e6).round() / 1e6 + 0.0).replace('-', "−"),
            Scale::Whole if is_whole => format!("{whole}"),
            Scale::Log if is_whole && (-3.0..=3.0).contains(&whole) => format!("{}", 10f64.powf(whole)),
            Scale::Log if is_whole => format!("10{}", superscript(whole as i32)),
            Scale::Whole | Scale::Log => String::new(),
        }
    }

    /// The span of some values on the axis, with room at both ends; on a logarithmic one from power to power.
    pub(super) fn span(&self, values: impl Iterator<Item = f64>) -> (f64, f64) {
        let places = values.filter(|v| v.is_finite()).map(|v| self.place(v));
        let (low, high) = places.fold((f64::MAX, f64::MIN), |(low, high), p| (low.min(p), high.max(p)));
        if low > high {
            return (0.0, 1.0);
        }
        if self.scale == Scale::Log {
            return (low.floor(), high.ceil().max(low.floor() + 1.0));
        }
        let room = if high > low { 0.06 * (high - low) } else { 0.5 };
        (low - room, high + room)
    }
}

impl Point {
    /// A point without an interval.
    pub(super) fn single(x: f64, y: f64) -> Self {
        Self { x, y, ends: (y, y) }
    }
}

/// A whole number with a narrow space between thousands, as ISO 80000-1 has it.
pub(super) fn group_digits(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut out = String::from(if value < 0.0 { "−" } else { "" });
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i) % 3 == 0 {
            out.push('\u{a0}');
        }
        out.push(digit);
    }
    out
}

fn superscript(value: i32) -> String {
    const DIGITS: [char; 10] = ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'];
    let digits = value.unsigned_abs().to_string();
    let digits = digits.chars().filter_map(|c| c.to_digit(10)).map(|d| DIGITS[d as usize]);
    if value < 0 { std::iter::once('⁻').chain(digits).collect() } else { digits.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_of_axes() {
        let label = |scale, place| Axis::new("", scale).label(place);
        assert_eq!(label(Scale::Linear, 0.1 + 0.2), "0.3");
        assert_eq!(label(Scale::Linear, -20.0), "−20");
        assert_eq!(label(Scale::Linear, -0.0), "0");
        assert_eq!(label(Scale::Linear, 44_800.0), "44\u{a0}800");
        assert_eq!((label(Scale::Whole, 2.0), label(Scale::Whole, 2.5)), ("2".to_owned(), String::new()));
        assert_eq!((label(Scale::Log, -7.0), label(Scale::Log, -1.0)), ("10⁻⁷".to_owned(), "0.1".to_owned()));
        assert_eq!(label(Scale::Log, -7.5), "");
        assert_eq!(group_digits(1_234_567.0), "1\u{a0}234\u{a0}567");
    }

    #[test]
    fn spans_hold_their_values() {
        let linear = Axis::new("", Scale::Linear);
        let (low, high) = linear.span([1.0, 5.0, f64::NAN].into_iter());
        assert!(low < 1.0 && high > 5.0 && high < 6.0);
        let (low, high) = linear.span([3.0].into_iter());
        assert!(low < 3.0 && high > 3.0);
        assert_eq!(linear.span([].into_iter()), (0.0, 1.0));
        let log = Axis::new("", Scale::Log);
        assert_eq!(log.span([3e-7, 1e-5].into_iter()), (-7.0, -5.0));
        assert_eq!(log.span([0.0].into_iter()), (-12.0, -11.0));
    }
}
