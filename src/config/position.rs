//! Lines and columns of a text, and excerpts with a caret.

/// Characters of a long line to show around the position.
const WINDOW: usize = 100;

/// The text without a byte order mark. Unit's offsets and columns exclude it (`nxt_controller.c`).
pub fn without_bom(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)
}

/// Line and column, starting at 1. Columns are characters.
pub fn line_and_column(text: &[u8], offset: usize) -> (usize, usize) {
    let before = &text[..offset.min(text.len())];
    let start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let line = before[..start].split(|byte| *byte == b'\n').count();
    (line, 1 + String::from_utf8_lossy(&before[start..]).chars().count())
}

/// The line, and a caret below the column. Both keep tabs, so they align.
pub fn caret(bytes: &[u8], line: usize, column: usize) -> String {
    let text = String::from_utf8_lossy(without_bom(bytes));
    let shown = text.split('\n').nth(line.saturating_sub(1)).unwrap_or_default().trim_end_matches('\r');
    // Replace unprintable characters to keep the columns.
    let printable = |c: char| if c == '\t' || !c.is_control() { c } else { '\u{fffd}' };
    let shown: Vec<char> = shown.chars().map(printable).collect();
    let at = column.saturating_sub(1).min(shown.len());
    let from = if shown.len() <= WINDOW { 0 } else { at.saturating_sub(WINDOW / 2).min(shown.len() - WINDOW) };
    let to = shown.len().min(from + WINDOW);
    let cut = |cut: bool| if cut { "…" } else { "" };
    let gap: String = shown[from..at].iter().map(|c| if *c == '\t' { '\t' } else { ' ' }).collect();
    let head = if from > 0 { " " } else { "" };
    format!("{}{}{}\n{head}{gap}^", cut(from > 0), shown[from..to].iter().collect::<String>(), cut(to < shown.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_line_and_a_character() {
        for (text, offset, place) in
            [(&b"a\n\xff\xfebc"[..], 6, (2, 5)), ("é\nx".as_bytes(), 3, (2, 1)), (b"", 0, (1, 1))]
        {
            assert_eq!(line_and_column(text, offset), place, "{text:?}");
        }
    }

    #[test]
    fn the_caret_stands_below_the_column() {
        assert_eq!(caret(b"{\n\t\"a\": 1\r\n\t\"b\": 2\n}", 3, 2), "\t\"b\": 2\n\t^");
        assert_eq!(caret("\u{feff}{\"é€\" 1}".as_bytes(), 1, 7), "{\"é€\" 1}\n      ^");
        assert_eq!(caret(b"{", 1, 2), "{\n ^");
        assert_eq!(caret(b"{", 0, 0), "{\n^");
        assert_eq!(caret(b"{\"a\":\n", 2, 1), "\n^");
    }

    #[test]
    fn a_long_line_is_cut_around_the_column() {
        let line = format!("{}x{}", "a".repeat(300), "b".repeat(300));
        let text = caret(line.as_bytes(), 1, 301);
        let (shown, below) = text.split_once('\n').unwrap();
        assert_eq!(shown.chars().count(), WINDOW + 2);
        assert_eq!(shown.chars().nth(below.chars().count() - 1), Some('x'));
        let end = caret(line.as_bytes(), 1, 602);
        let (shown, below) = end.split_once('\n').unwrap();
        assert_eq!((shown.chars().count(), below.chars().count()), (WINDOW + 1, WINDOW + 2));
    }
}
