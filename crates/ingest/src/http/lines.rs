//! A body line by line: NDJSON of any length within a bounded memory.

use axum::body::Body;

use super::{extract::Pieces, problem::Problem};

/// The longest line that is kept; what is longer is passed over and told.
pub(crate) const MAX_LINE_BYTES: usize = 4 * 1024 * 1024;

/// A line without its end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line {
    Bytes(Vec<u8>),
    TooLong,
}

#[derive(Debug)]
pub(crate) struct Lines {
    pieces: Pieces,
    cutter: Cutter,
    ended: bool,
}

impl Lines {
    pub(crate) fn new(body: Body) -> Lines {
        Lines {
            pieces: Pieces::new(body),
            cutter: Cutter::default(),
            ended: false,
        }
    }

    /// The lines of the next piece of the body (perhaps none); `None` at its end.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<Line>>, Problem> {
        if self.ended {
            return Ok(None);
        }
        Ok(Some(match self.pieces.next().await? {
            Some(piece) => self.cutter.cut(&piece),
            None => {
                self.ended = true;
                self.cutter.end().into_iter().collect()
            }
        }))
    }
}

/// Cuts pieces into lines.
#[derive(Debug, Default)]
struct Cutter {
    open: Vec<u8>,
    too_long: bool,
}

impl Cutter {
    fn cut(&mut self, piece: &[u8]) -> Vec<Line> {
        let mut lines = Vec::new();
        let mut rest = piece;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            self.keep(&rest[..end]);
            lines.push(self.close());
            rest = &rest[end + 1..];
        }
        self.keep(rest);
        lines
    }

    fn end(&mut self) -> Option<Line> {
        (self.too_long || !self.open.is_empty()).then(|| self.close())
    }

    fn keep(&mut self, bytes: &[u8]) {
        if self.too_long || self.open.len() + bytes.len() > MAX_LINE_BYTES {
            self.too_long = true;
            self.open = Vec::new();
        } else {
            self.open.extend_from_slice(bytes);
        }
    }

    fn close(&mut self) -> Line {
        let mut line = std::mem::take(&mut self.open);
        if std::mem::take(&mut self.too_long) {
            return Line::TooLong;
        }
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        Line::Bytes(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_whole_however_the_pieces_are_cut() {
        let mut cutter = Cutter::default();
        let mut lines = Vec::new();
        for piece in ["{\"a\"", ":1}\r\n\n{\"b\"", ":2}\n", "tail"] {
            lines.extend(cutter.cut(piece.as_bytes()));
        }
        lines.extend(cutter.end());
        let text = |text: &str| Line::Bytes(text.as_bytes().to_vec());
        assert_eq!(lines, [text("{\"a\":1}"), text(""), text("{\"b\":2}"), text("tail")]);
        assert_eq!(cutter.end(), None);
    }

    #[test]
    fn a_line_that_is_too_long_is_passed_over_and_the_next_is_read() {
        let mut cutter = Cutter::default();
        let mut lines = cutter.cut(&vec![b'x'; MAX_LINE_BYTES]);
        lines.extend(cutter.cut(b"xx\nnext\n"));
        assert_eq!(lines, [Line::TooLong, Line::Bytes(b"next".to_vec())]);
    }
}
