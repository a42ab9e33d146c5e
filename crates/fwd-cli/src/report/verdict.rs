//! The verdict: what the runs say, in one or two sentences, and what their seeds cannot tell.

use super::shared::minus;
use crate::table;
use fwd_run::Method;
use fwd_run::comparison::{Comparison, Group, MEASURES, Measure, Summary};

/// A group with its A.
type Ranked<'a> = (&'a Group, Summary);

/// What the runs say.
pub(super) fn verdict(comparison: &Comparison) -> String {
    let Some(measure) = measure("average") else { return String::new() };
    // References are no competitors: they do what a method for a sequence may not.
    let is_any_sequence = comparison.groups.iter().any(Group::is_sequence);
    let groups = comparison.groups.iter().filter(|group| group.is_sequence() || !is_any_sequence);
    let mut ranked: Vec<Ranked<'_>> =
        groups.filter_map(|group| Some((group, group.summary(measure.of)?))).collect();
    ranked.sort_by(|a, b| b.1.mean.total_cmp(&a.1.mean));
    let Some((best, average)) = ranked.first() else { return "No run has a mean score.".to_owned() };
    let mut text = first_sentence(best, &number(measure, *average));
    if average.half_width.is_none() && ranked.len() == 1 {
        text += " It ran under one seed, which does not tell how much of this is chance.";
    }
    if let Some(sentence) = beside(&ranked, measure) {
        text += &sentence;
    }
    text
}

fn measure(key: &str) -> Option<&'static Measure> {
    MEASURES.iter().find(|measure| measure.key == key)
}

fn number(measure: &Measure, summary: Summary) -> String {
    minus(&table::measure(measure, Some(summary)))
}

/// How a group did by itself.
fn first_sentence(group: &Group, average: &str) -> String {
    let name = group.name();
    let n_tasks = match group.tasks().len() {
        1 => "1 task".to_owned(),
        n => format!("{n} tasks"),
    };
    let mut parts = vec![match group.method {
        Method::Independent => {
            format!("{name} reaches {average} of 100 points on {n_tasks}, each learnt alone")
        }
        Method::Joint => format!("{name} reaches {average} of 100 points on {n_tasks} learnt at once"),
        Method::ZeroShot => format!("{name} reaches {average} of 100 points on {n_tasks} without training"),
        _ => format!("{name} keeps {average} of 100 points after {n_tasks}"),
    }];
    if let Some((measure, lost)) = summary(group, "forgetting") {
        let what = if lost.mean < 0.0 { "it forgets nothing but gains: F is" } else { "it forgets" };
        parts.push(format!("{what} {}{}", number(measure, lost), from_zero(&lost)));
    }
    if let Some((measure, gained)) = summary(group, "forward_transfer") {
        parts.push(format!("its forward transfer is {}{}", number(measure, gained), from_zero(&gained)));
    }
    format!("{}.", parts.join("; "))
}

fn summary(group: &Group, key: &str) -> Option<(&'static Measure, Summary)> {
    let measure = measure(key)?;
    Some((measure, group.summary(measure.of)?))
}

/// Whether the interval of a difference holds 0.
fn from_zero(summary: &Summary) -> &'static str {
    let holds_zero = summary.low() <= 0.0 && summary.high() >= 0.0;
    if summary.half_width.is_some() && holds_zero { ", which the seeds do not tell from 0" } else { "" }
}

/// How the best of several groups stands to the others; none for one group.
fn beside(ranked: &[Ranked<'_>], measure: &Measure) -> Option<String> {
    let ((_, average), others) = ranked.split_first()?;
    let (_, second) = others.first()?;
    let names =
        |groups: &[&Ranked<'_>]| groups.iter().map(|(group, _)| group.name()).collect::<Vec<_>>().join(", ");
    let ahead = average.mean - second.mean;
    let mut text = format!(
        " Of {} methods it has the highest A, {ahead:.1} points before {}",
        ranked.len(),
        others[0].0.name()
    );
    let ran_once: Vec<&Ranked<'_>> = ranked.iter().filter(|(_, a)| a.half_width.is_none()).collect();
    if let Some(own) = measure.interval(average) {
        let overlaps =
            |(_, other): &&Ranked<'_>| measure.interval(other).is_some_and(|(_, high)| high >= own.0);
        let is_clear =
            |(_, other): &&Ranked<'_>| measure.interval(other).is_some_and(|(_, high)| high < own.0);
        let (near, clear): (Vec<_>, Vec<_>) =
            (others.iter().filter(overlaps).collect(), others.iter().filter(is_clear).collect());
        if !near.is_empty() {
            text += &format!(
                "; its 95 % interval overlaps that of {}, so that these seeds do not tell them apart",
                names(&near)
            );
        }
        if !clear.is_empty() {
            text += &format!("; its 95 % interval lies above that of {}", names(&clear));
        }
    }
    if !ran_once.is_empty() {
        text += &format!("; one seed ({}) does not tell a difference from chance", names(&ran_once));
    }
    Some(text + ".")
}
