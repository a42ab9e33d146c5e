//! Tables as people and tools write them.

use super::*;

fn read(text: &str) -> Result<ScoreTable> {
    ScoreTable::read(text.as_bytes(), "s.csv")
}

fn message(text: &str) -> String {
    let matrix = |table: ScoreTable| table.matrix(table.first_row(table.n_columns()), table.n_columns());
    read(text).and_then(matrix).unwrap_err().to_string()
}

/// The score matrix with −1 where a score is missing.
fn matrix(text: &str) -> Vec<Vec<f64>> {
    let table = read(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    let n = table.n_columns();
    let rows = table.matrix(table.first_row(n), n).unwrap_or_else(|error| panic!("{text}: {error}"));
    rows.into_iter().map(|row| row.into_iter().map(|s| if s.is_nan() { -1.0 } else { s }).collect()).collect()
}

#[test]
fn names_are_optional() {
    let rows = [vec![1.0], vec![2.0, 3.5]];
    for text in [
        "1,\n2,3.5",
        "1\n2,3.5",
        "1\r\n2,3.5\r\n",
        "\u{feff}1,\n\n2, 3.5 ,\n,\n",
        "\"1\"\n\"2\",3.5",
        "1;\n2;3,5",
        "1\t\n2\t3,5",
        "1,NA\n2,3.5",
        "[[1], [2, 3.5]]",
        "[[1, null], [2, 3.5]]",
        "1 nan\n2 3.5",
        "1 -\n2 3.5",
    ] {
        let table = read(text).unwrap();
        let found = (table.rows.as_slice(), table.tasks.len(), table.moments.len());
        assert_eq!(found, (&rows[..], 0, 0), "{text}");
    }
    for text in [
        ",a,b\n7,1\n9,2,3.5",
        "step,a,b\n1,1\n2,2,3.5",
        "step,a,b\n0,1\n1,2,3.5",
        "x,a,b\np,1,\nq,2,3.5\n",
        "a,b\np,1,\nq,2,3.5\n",
        "| after | a | b |\n|---|---|---|\n| 1 | 1 | - |\n| 2 | 2 | 3.5 |\n",
        "after;a;b\r\np;1,0;\r\nq;2,0;3,5\r\n",
        "after  a  b\n──────────\n1 p    1  \n2 q    2  3.5\n",
    ] {
        let table = read(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!((table.rows.as_slice(), table.moments.len()), (&rows[..], 2), "{text}");
        assert_eq!(table.tasks, ["a", "b"]);
    }
    assert_eq!(read("a,b\n1\n4,3.5").unwrap().tasks, ["a", "b"]);
    let table = read("t1,1\nt2,2,3.5").unwrap();
    assert_eq!((table.tasks.len(), table.moments), (0, vec!["t1".to_owned(), "t2".to_owned()]));
}

#[test]
fn a_row_with_a_number_or_nearly_one_is_no_header() {
    assert_eq!(matrix("90%,10\n80,85"), [vec![], vec![90.0, 10.0], vec![80.0, 85.0]]);
    assert_eq!(message("9O,10,10\n80,85,10\n70,75,88"), "s.csv, line 1, column 1: `9O` is no score");
    assert_eq!(message("a,9O,10\n80,85,10"), "s.csv, line 1, column 1: `a` is no score");
    assert_eq!(message("1e,10\n80,85"), "s.csv, line 1, column 1: `1e` is no score");
    assert_eq!(message("90 points,10 points\n80,85"), "s.csv, line 1, column 1: `90 points` is no score");
    assert_eq!(message("inf,10\n80,85"), "s.csv, line 1, column 1: `inf` is no score");
    assert_eq!(
        matrix("90,NA,NA\n80,85,10\n70,75,88")[1..],
        [vec![90.0], vec![80.0, 85.0, 10.0], vec![70.0, 75.0, 88.0]]
    );
}

#[test]
fn what_pandas_writes_and_prints_is_read() {
    let two = [vec![], vec![90.0], vec![80.0, 85.5]];
    for text in [
        ",0,1\n0,90.0,\n1,80.0,85.5\n",
        "      0     1\n0  90.0   NaN\n1  80.0  85.5\n",
        "    a     b\n90.0   NaN\n80.0  85.5\n",
        ";0;1\n0;90,0;\n1;80,0;85,5\n",
        ",visual qa,captions\nvisual qa,90.0,\ncaptions,80.0,85.5\n",
        "           visual qa  captions\nvisual qa       90.0       NaN\ncaptions        80.0      85.5\n",
        ";visual qa;captions\nvisual qa;90,0;\ncaptions;80,0;85,5\n",
        "[[90.0,null],[80.0,85.5]]",
        "|    |   a |    b |\n|---:|----:|-----:|\n|  0 |  90 | nan  |\n|  1 |  80 | 85.5 |\n",
    ] {
        assert_eq!(matrix(text), two, "{text}");
    }
    let three = [vec![], vec![90.0, 10.0, 3.25], vec![80.0, 85.0, 1.0], vec![70.0, 75.0, 88.0]];
    for text in [
        "after,a,b,c\n0,90.0,10.0,3.25\n1,80.0,85.0,1.0\n2,70.0,75.0,88.0\n",
        "          a     b      c\nafter                   \n0      90.0  10.0   3.25\n1      80.0  85.0   1.00\n2      70.0  75.0  88.00\n",
        "task      a     b      c\nafter                   \n0      90.0  10.0   3.25\n1      80.0  85.0   1.00\n2      70.0  75.0  88.00\n",
        "   a    b     c\n90.0 10.0  3.25\n80.0 85.0  1.00\n70.0 75.0 88.00\n",
    ] {
        assert_eq!(matrix(text), three, "{text}");
    }
    assert!(
        message("         0  ...        29\n0  0.573921  ...  0.456627\n1  0.706017  ...  0.324245\n")
            .contains("cut")
    );
}

#[test]
fn what_numpy_writes_and_prints_is_read() {
    let two = [vec![], vec![90.0], vec![80.0, 85.5]];
    for text in [
        "[[90.   nan]\n [80.  85.5]]\n",
        "array([[90. ,  nan],\n       [80. , 85.5]])",
        "np.array([[90. ,  nan],\n       [80. , 85.5]], dtype=float32)\n",
        "tensor([[90.0000,     nan],\n        [80.0000, 85.5000]], device='cuda:0')",
        "9.000000000000000000e+01 nan\n8.000000000000000000e+01 8.550000000000000000e+01\n",
        "[[90.0 --]\n [80.0 85.5]]",
        "[[90.0, None], [80.0, 85.5]]",
        "# a,b\n90.00,nan\n80.00,85.50\n",
    ] {
        assert_eq!(matrix(text), two, "{text}");
    }
    assert!(message("[[0.1 0.2 ... 0.3]\n [0.1 0.2 ... 0.3]]").contains("cut"));
}

#[test]
fn only_what_lies_above_the_diagonal_may_be_missing() {
    assert_eq!(matrix("90,NA,10\n80,85,nan\n70,75,88")[1], [90.0, -1.0, 10.0]);
    assert_eq!(matrix("-,20\n60,24\n50,70")[0], [-1.0, 20.0]);
    assert!(message("NA,10\n80,85").starts_with("s.csv, line 1, column 1: a score is missing"));
    assert!(message("90,10\n,85").starts_with("s.csv, line 2, column 1: a score is missing"));
    assert!(message("90,10\n80,").starts_with("s.csv, line 2, column 2: a score is missing"));
    assert!(message("x,a,b\np,1,2\nq,1,NaN").starts_with("s.csv, line 3, column 3: a score is missing"));
}

#[test]
fn ragged_shapes_are_errors() {
    assert_eq!(
        message("90,10\n80,85\n1,2,3"),
        "s.csv, line 1, column 3: the row ends here, that of line 3 has 3 scores"
    );
    assert_eq!(
        message("90,10,1\n80,85\n1,2,3"),
        "s.csv, line 2, column 3: the row ends here, that of line 1 has 3 scores"
    );
    assert_eq!(message("a,b\n1,2\n\n1,2,3\n"), "s.csv, line 4, column 3: the header names no such column");
    assert_eq!(matrix("90\n80,85\n70,75,88").len(), 4);
    assert_eq!(matrix("1,2\n90\n80,85"), [vec![1.0, 2.0], vec![90.0], vec![80.0, 85.0]]);
    assert!(message("1,2\n3,4\n5,6\n7,8").contains("line 4, column 1: 2 tasks have no moment 3"));
}

#[test]
fn spellings_of_numbers_are_not_mixed() {
    assert_eq!(matrix("90%;10%\n80%;85,5%")[2], [80.0, 85.5]);
    assert!(
        message("8,5;1\n8.5;2")
            .contains("line 2, column 1: one table has either decimal points or decimal commas")
    );
    assert!(message("90%,0.1\n0.8,0.9").contains("line 1, column 2: is this a share"));
    assert_eq!(message("8,5 10,2\n1,2 3,4"), "s.csv, line 1, column 2: `5 10` is no score");
    assert_eq!(message("1.234,5;1\n1;2"), "s.csv, line 1, column 1: `1.234,5` is no score");
    assert_eq!(matrix("0.9,0.1\n0.8,0.85")[2], [0.8, 0.85]);
}

#[test]
fn columns_and_rows_that_are_no_tasks_are_errors() {
    assert!(
        message("after,a,b,avg\n1,1,2,1.5\n2,1,2,1.5")
            .contains("line 1, column 4: the column `avg` is no task")
    );
    assert!(
        message(",a,b\nx,1,2\ny,1,2\nmean,1,2").contains("line 4, column 1: the row `mean` is no moment")
    );
    assert!(
        message("task,after a,after b\na,1,2\nb,1,2")
            .contains("line 1, column 2: the columns are moments: transpose")
    );
    assert!(message(",a,b\nb,1,2\na,1,2").contains("line 3, column 1: the row `a` comes after `b`"));
    assert!(message("a,,b\n1,2,3\n").contains("line 1, column 2: this column has no name"));
    assert!(message("x,a,b\n1,50,\n2,40,60").contains("line 2, column 1: are these scores of `x`"));
}

#[test]
fn metrics_of_a_run_are_read() {
    let csv = "kind,after,name,value\nscore,0,a,10\nscore,0,b,20\nscore,0,pre-training,50\nscore,1,a,60\nscore,1,b,24\n\
        score,1,pre-training,49\nscore,2,a,50\nscore,2,b,70\nscore,2,pre-training,48\nmeasure,,average,60\nmeasure,,plasticity,\n\
        size,,trainable_parameters,12\n";
    let table = read(csv).unwrap();
    assert!(table.names_pretraining());
    assert_eq!(table.tasks, ["a", "b", "pre-training"]);
    let rows = table.matrix(table.first_row(2), 2).unwrap();
    assert_eq!(rows, [[10.0, 20.0, 50.0], [60.0, 24.0, 49.0], [50.0, 70.0, 48.0]]);
    assert_eq!(table.stated, [("average".to_owned(), 60.0)]);
    let cut = csv.split("size").next().unwrap();
    assert_eq!(message(cut), "s.csv, line 12, column 1: the file ends before the sizes: it is cut");
    assert!(message(&csv.replace("score,1,b", "score,1,c")).contains("line 6, column 3: `c` stands where"));
    assert!(
        message(&csv.replace("score,2,a,50", "score,3,a,50"))
            .contains("line 8, column 2: `3` is not the moment")
    );
    assert!(message(&csv.replace("a,60", "a,6O")).contains("line 5, column 4: `6O` is no score"));
}

#[test]
fn quotation_marks_are_kept_apart() {
    let table = read("\"a, or \"\"b\"\"\nc\" ,d\n1,2\n").unwrap();
    assert_eq!(table.tasks, ["a, or \"b\"\nc", "d"]);
    assert_eq!(table.lines, [3]);
    let error = |line, column| EvalError::Quotes { file: "s.csv".into(), line, column };
    assert_eq!(read("1,2\n3,\"4\n"), Err(error(2, 2)));
    assert_eq!(read("1,2\n\"3\"4,5\n"), Err(error(2, 1)));
}

#[test]
fn errors_name_line_and_column() {
    assert_eq!(message("x,a,b\np,1,2\nq,1,5O\n"), "s.csv, line 3, column 3: `5O` is no score");
    assert_eq!(message("1,inf\n"), "s.csv, line 1, column 2: `inf` is no score");
    assert_eq!(message("5O,1\n2,3\n1,x"), "s.csv, line 1, column 1: `5O` is no score");
    let long = message(&format!("1,{}\n", "x\u{1b}".repeat(500)));
    assert!(long.len() < 300 && !long.contains('\u{1b}'), "{long}");
    for text in ["", "\n,\n", "a,b\n", "a,b\n,\n"] {
        assert_eq!(message(text), "s.csv: there are no scores");
    }
}

#[test]
fn matrices_start_before_training() {
    let square = read("60,\n50,70").unwrap();
    assert_eq!(square.first_row(2), FirstRow::AfterFirstTask);
    assert_eq!(square.matrix(FirstRow::AfterFirstTask, 2).unwrap(), [vec![], vec![60.0], vec![50.0, 70.0]]);
    let tall = read("10,20\n60,24\n50,70").unwrap();
    assert_eq!(tall.first_row(2), FirstRow::BeforeTraining);
    assert_eq!(tall.matrix(FirstRow::BeforeTraining, 2).unwrap()[0], [10.0, 20.0]);
    // The last column is pre-training: three moments of two tasks.
    let wide = read("10,20,50\n60,24,49\n50,70,48").unwrap();
    assert_eq!(wide.first_row(2), FirstRow::BeforeTraining);
    assert_eq!(read("after,a,b\nzero-shot,1,2\na,3,4").unwrap().first_row(2), FirstRow::BeforeTraining);
    // A run that goes on.
    assert!(read("x,a,b,c\nt1,60\nt2,50,60\n").unwrap().matrix(FirstRow::AfterFirstTask, 3).is_ok());
}
