//! Grounding: whether a box in an image lies where the gold box lies.
//!
//! `IoU(a, b) = |a ∩ b| / |a ∪ b|`; a prediction is right if `IoU ≥ 0.5`. Boxes are `[x1, y1, x2, y2]`, the corners top left and
//! bottom right. A width is the difference of two corners; some scorers add a pixel to it.
//!
//! Source: Kazemzadeh et al., *ReferItGame: Referring to Objects in Photographs of Natural Scenes*, EMNLP 2014; the threshold is
//! that of Everingham et al., *The PASCAL Visual Object Classes Challenge*, IJCV 2010, equation 1, which the field takes for
//! RefCOCO.

use crate::corners::four_numbers;

/// The smallest overlap at which a predicted box is right.
const THRESHOLD: f64 = 0.5;

/// A box by two corners, `x1 < x2` and `y1 < y2` if it was read from text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BBox {
    /// Left, top, right and bottom edge, in the unit of the text that was read.
    pub corners: [f64; 4],
}

/// The unit of the numbers of a box.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BoxUnit {
    /// Pixels of the image.
    Pixels,
    /// Fractions of width and height, 0 to 1 (LLaVA, Shikra).
    Fractions,
    /// Thousandths of width and height, 0 to 1000 (Qwen-VL, InternVL).
    Thousandths,
}

impl BBox {
    /// Reads the box from a text with exactly four numbers, in whatever brackets: `[1,2,3,4]`, `[[1, 2, 3, 4]]`, `(1,2),(3,4)`,
    /// `<box>(1,2),(3,4)</box>`, `{<1><2><3><4>}`, `1 2 3 4`, `The box is [0.1, 0.2, 0.3, 0.4].`
    ///
    /// In a text with other numbers the box is the one list of exactly four: in brackets of any kind that hold nothing else, as two pairs
    /// in brackets, or behind a key or mark that says `box`. So `{"bbox_2d": [1, 2, 3, 4], "label": "2 men"}` has a box. Several
    /// different lists are ambiguous, and there is no box then; the same list twice is one.
    ///
    /// Digits inside of words (`x1`) are no numbers. There is no box unless it has an area.
    ///
    /// # Examples
    /// ```
    /// use fwd_eval::BBox;
    /// assert_eq!(BBox::parse("(1,2),(3,4)"), Some(BBox { corners: [1.0, 2.0, 3.0, 4.0] }));
    /// assert_eq!(BBox::parse("(3,4),(1,2)"), None);
    /// ```
    pub fn parse(text: &str) -> Option<Self> {
        let corners = four_numbers(text)?;
        let [left, top, right, bottom] = corners;
        let has_area = left < right && top < bottom && corners.iter().all(|x| x.is_finite());
        has_area.then_some(Self { corners })
    }

    /// The box in pixels of an image of `size` (width, height).
    ///
    /// # Examples
    /// ```
    /// use fwd_eval::{BBox, BoxUnit};
    /// let tenths = BBox { corners: [0.1, 0.2, 0.5, 0.6] };
    /// assert_eq!(tenths.in_pixels(BoxUnit::Fractions, [100.0, 50.0]).corners, [10.0, 10.0, 50.0, 30.0]);
    /// ```
    pub fn in_pixels(self, unit: BoxUnit, size: [f64; 2]) -> Self {
        let whole = match unit {
            BoxUnit::Pixels => return self,
            BoxUnit::Fractions => 1.0,
            BoxUnit::Thousandths => 1000.0,
        };
        Self { corners: std::array::from_fn(|i| self.corners[i] * size[i % 2] / whole) }
    }

    /// Intersection over union, between 0 and 1; 0 if neither box has an area.
    ///
    /// # Examples
    /// ```
    /// use fwd_eval::BBox;
    /// let (a, b) = (BBox { corners: [0.0, 0.0, 2.0, 2.0] }, BBox { corners: [1.0, 0.0, 3.0, 2.0] });
    /// assert!((a.iou(b) - 2.0 / 6.0).abs() < 1e-12);
    /// ```
    pub fn iou(self, other: Self) -> f64 {
        let (a, b) = (self.corners, other.corners);
        let meet = [a[0].max(b[0]), a[1].max(b[1]), a[2].min(b[2]), a[3].min(b[3])];
        let intersection = area(meet);
        let union = area(a) + area(b) - intersection;
        if union > 0.0 && union.is_finite() { intersection / union } else { 0.0 }
    }
}

/// 1 if the predicted box overlaps one of the answers with `IoU ≥ 0.5`, else 0; a prediction that is no box scores 0.
///
/// Both sides must have the same unit. It may be any, because stretching the width or height of both changes no IoU. Where the units
/// differ, take [`grounding_in`].
///
/// # Examples
/// ```
/// use fwd_eval::grounding;
/// assert_eq!(grounding("<box>(0,0),(10,10)</box>", &["[0, 0, 10, 6]"]), 1.0);
/// assert_eq!(grounding("[0,0,10,10]", &["[0,0,10,4]"]), 0.0);
/// assert_eq!(grounding("on the left", &["[0,0,10,4]"]), 0.0);
/// ```
pub fn grounding<S: AsRef<str>>(prediction: &str, answers: &[S]) -> f64 {
    grounding_in(BoxUnit::Pixels, prediction, answers, [1.0, 1.0])
}

/// As [`grounding`], with the prediction in `unit` and the answers in pixels of an image of `size` (width, height).
///
/// # Examples
/// ```
/// use fwd_eval::{BoxUnit, grounding_in};
/// let answers = ["[64,48,320,240]"];
/// assert_eq!(grounding_in(BoxUnit::Fractions, "[0.1,0.1,0.5,0.5]", &answers, [640.0, 480.0]), 1.0);
/// assert_eq!(grounding_in(BoxUnit::Thousandths, "(100,100),(500,500)", &answers, [640.0, 480.0]), 1.0);
/// ```
pub fn grounding_in<S: AsRef<str>>(unit: BoxUnit, prediction: &str, answers: &[S], size: [f64; 2]) -> f64 {
    let Some(prediction) = BBox::parse(prediction) else { return 0.0 };
    let prediction = prediction.in_pixels(unit, size);
    let near =
        |answer: &S| BBox::parse(answer.as_ref()).is_some_and(|answer| prediction.iou(answer) >= THRESHOLD);
    f64::from(u8::from(answers.iter().any(near)))
}

fn area([left, top, right, bottom]: [f64; 4]) -> f64 {
    (right - left).max(0.0) * (bottom - top).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_in_every_spelling() {
        let spellings = [
            "[1,2,3,4]",
            "[[1, 2, 3, 4]]",
            "(1,2),(3,4)",
            "<box>(1,2),(3,4)</box>",
            "<|box_start|>(1,2),(3,4)<|box_end|>",
            "{<1><2><3><4>}",
            "1 2 3 4",
            "[1.0, 2.0, 3e0, 4.]",
            "The box is [1, 2, 3, 4].",
            r#"{"x1": 1, "y1": 2, "x2": 3, "y2": 4}"#,
        ];
        for text in spellings {
            assert_eq!(BBox::parse(text).map(|b| b.corners), Some([1.0, 2.0, 3.0, 4.0]), "{text}");
        }
        assert_eq!(BBox::parse("[-1,-.5,0,+2]").map(|b| b.corners), Some([-1.0, -0.5, 0.0, 2.0]));
    }

    #[test]
    fn what_is_no_box_scores_nothing() {
        let texts = [
            "",
            "[1,2,3]",
            "[1,2,3,4,5]",
            "[3,2,1,4]",
            "[1,4,3,2]",
            "[1,2,1,4]",
            "x1 y1 x2 y2",
            "[nan,0,inf,1]",
        ];
        for text in texts {
            assert!(BBox::parse(text).is_none(), "{text}");
            assert_eq!(grounding(text, &[text, "[1,2,3,4]"]), 0.0, "{text}");
        }
        assert_eq!(grounding("[0,0,1,1e999]", &["[0,0,1,1]"]), 0.0);
        assert_eq!(grounding("[0,0,1e300,1e300]", &["[0,0,1e300,1e300]"]), 0.0); // the area overflows
    }

    #[test]
    fn one_list_of_four_is_the_box_whatever_numbers_stand_around_it() {
        for text in [
            r#"{"bbox_2d":[10,20,110,220],"label":"2 men"}"#,
            r#"[{"bbox_2d": [10, 20, 110, 220], "label": "2 men"}]"#,
            "```json\n[\n  {\"bbox_2d\": [10, 20, 110, 220], \"label\": \"man 2\"}\n]\n```",
            r#"{"label": "2 men", "bbox": {"x1": 10, "y1": 20, "x2": 110, "y2": 220}}"#,
            r#"{"box": "10 20 110 220", "score": 0.95}"#,
            r#"{"bbox": ["10", "20", "110", "220"], "id": 7}"#,
            r#"{"bbox_2d": [[10, 20], [110, 220]], "n": 1}"#,
            "2 men at [10, 20, 110, 220]",
            "There are 2 [10,20,110,220]",
            "[[10, 20, 110, 220], 0.95]",
            "<ref>2 men</ref><box>(10,20),(110,220)</box>",
            "<|ref|>2 men<|/ref|><|det|>[[10, 20, 110, 220]]<|/det|>",
            "2 (10,20),(110,220)",
            "<p>2 men</p> {<10><20><110><220>}",
            "<box>10 20 110 220</box>: the 2 men",
            "The 2 men are in (10, 20, 110, 220), that is [10, 20, 110, 220].",
            r#"{"bbox_2d":[10,20,110,220],"label":"1 2 3 4"}"#,
            "bbox: 10, 20, 110, 220; label: 2 men",
        ] {
            assert_eq!(BBox::parse(text).map(|b| b.corners), Some([10.0, 20.0, 110.0, 220.0]), "{text}");
        }
    }

    #[test]
    fn several_lists_of_four_are_ambiguous() {
        for text in [
            r#"[{"bbox_2d":[10,20,110,220]},{"bbox_2d":[11,20,110,220]}]"#,
            "[1,2,3,4] [5,6,7,8]",
            "(1,2),(3,4),(5,6),(7,8)",
            "[1,2,3,4,0.9]",
            "2 men at 10 20 110 220",
            "<box>(1,2),(3,4)</box><box>(5,6),(7,8)</box>",
        ] {
            assert!(BBox::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn half_is_enough() {
        assert_eq!(grounding("[0,0,2,2]", &["[0,0,2,1]"]), 1.0);
        assert_eq!(grounding("[0,0,2,2]", &["[0,0,2,0.999]"]), 0.0);
        assert_eq!(grounding("[0,0,2,2]", &["[5,5,6,6]", "[0,0,2,2]"]), 1.0);
        assert_eq!(grounding("[0,0,2,2]", &["[2,2,4,4]"]), 0.0);
    }

    #[test]
    fn a_size_that_is_none_scores_nothing() {
        let answers = ["[0,0,1,1]"];
        assert_eq!(grounding_in(BoxUnit::Fractions, "[0,0,1,1]", &answers, [0.0, 0.0]), 0.0);
        assert_eq!(grounding_in(BoxUnit::Fractions, "[0,0,1,1]", &answers, [f64::NAN, 1.0]), 0.0);
    }
}
