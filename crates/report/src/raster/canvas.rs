//! Pixels: areas filled by the non-zero rule, lines with a width, both with soft edges.

/// A colour with its opacity, 0 to 1.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rgba {
    pub(super) rgb: [u8; 3],
    pub(super) alpha: f64,
}

/// Lines of a row of pixels at which an area is looked at; along a line it is exact.
const SUB: usize = 5;

/// A white sheet.
pub(super) struct Canvas {
    width: usize,
    height: usize,
    /// Red, green and blue, row by row.
    pixels: Vec<[f64; 3]>,
}

type Point = (f64, f64);

impl Canvas {
    pub(super) fn new(width: usize, height: usize) -> Self {
        Self { width, height, pixels: vec![[255.0; 3]; width * height] }
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.pixels.into_iter().flatten().map(|v| v.round().clamp(0.0, 255.0) as u8).collect()
    }

    fn blend(&mut self, x: usize, y: usize, colour: Rgba, coverage: f64) {
        let part = (coverage * colour.alpha).clamp(0.0, 1.0);
        let pixel = &mut self.pixels[y * self.width + x];
        for (own, new) in pixel.iter_mut().zip(colour.rgb) {
            *own += part * (f64::from(new) - *own);
        }
    }

    /// Rows of pixels between two heights.
    fn rows(&self, low: f64, high: f64) -> std::ops::Range<usize> {
        let clamp = |v: f64| v.clamp(0.0, self.height as f64) as usize;
        clamp(low.floor())..clamp(high.ceil())
    }

    /// Fills what the closed lines go around.
    pub(super) fn fill(&mut self, lines: &[Vec<Point>], colour: Rgba) {
        let edges: Vec<(Point, Point)> = lines
            .iter()
            .flat_map(|line| line.iter().copied().zip(line.iter().copied().cycle().skip(1)))
            .filter(|(a, b)| a.1 != b.1)
            .collect();
        let ys = || edges.iter().flat_map(|(a, b)| [a.1, b.1]);
        let rows = self.rows(ys().fold(f64::INFINITY, f64::min), ys().fold(f64::NEG_INFINITY, f64::max));
        let mut covered = vec![0.0; self.width];
        for y in rows {
            covered.fill(0.0);
            let near: Vec<&(Point, Point)> = edges
                .iter()
                .filter(|(a, b)| a.1.min(b.1) < y as f64 + 1.0 && a.1.max(b.1) > y as f64)
                .collect();
            for sub in 0..SUB {
                let at = y as f64 + (sub as f64 + 0.5) / SUB as f64;
                for (from, to) in spans(&near, at) {
                    cover(&mut covered, from, to);
                }
            }
            for x in 0..self.width {
                if covered[x] > 0.0 {
                    self.blend(x, y, colour, covered[x]);
                }
            }
        }
    }

    /// Draws along lines. Ends are round where `round` says so, else cut; corners are round.
    pub(super) fn stroke(
        &mut self,
        lines: &[Vec<Point>],
        closed: bool,
        width: f64,
        dash: &[f64],
        round: bool,
        colour: Rgba,
    ) {
        // All pieces of one stroke are joined before they are blended, so that no corner is painted twice.
        let mut all: Vec<(Point, Point, bool, bool)> = Vec::new();
        for line in lines {
            let mut line = line.clone();
            if let (true, Some(first)) = (closed, line.first().copied()) {
                line.push(first);
            }
            for piece in dashes(&line, dash) {
                let last = piece.len().saturating_sub(2);
                let own = piece.windows(2).enumerate();
                // Inside a piece and where a line closes, a corner follows: it is rounded.
                let rounded = |end: bool| round || (closed && dash.is_empty()) || !end;
                all.extend(own.map(|(i, ab)| (ab[0], ab[1], rounded(i == 0), rounded(i == last))));
            }
        }
        let reach = width / 2.0 + 1.0;
        let ys = || all.iter().flat_map(|(a, b, ..)| [a.1, b.1]);
        let (low, high) = (ys().fold(f64::INFINITY, f64::min), ys().fold(f64::NEG_INFINITY, f64::max));
        for y in self.rows(low - reach, high + reach) {
            let mut covered = vec![0.0f64; self.width];
            let middle = y as f64 + 0.5;
            for (a, b, round_a, round_b) in &all {
                if middle < a.1.min(b.1) - reach || middle > a.1.max(b.1) + reach {
                    continue;
                }
                let from = (a.0.min(b.0) - reach).floor().clamp(0.0, self.width as f64) as usize;
                let to = (a.0.max(b.0) + reach).ceil().clamp(0.0, self.width as f64) as usize;
                for (x, covered) in covered.iter_mut().enumerate().take(to).skip(from) {
                    let p = (x as f64 + 0.5, middle);
                    *covered = covered.max(near(p, *a, *b, width, *round_a, *round_b));
                }
            }
            for x in 0..self.width {
                if covered[x] > 0.0 {
                    self.blend(x, y, colour, covered[x]);
                }
            }
        }
    }
}

/// How much of the pixel at `p` a line of this width covers.
fn near(p: Point, a: Point, b: Point, width: f64, round_a: bool, round_b: bool) -> f64 {
    let (dx, dy) = (b.0 - a.0, b.1 - a.1);
    let length = dx.hypot(dy);
    if length == 0.0 {
        let distance = (p.0 - a.0).hypot(p.1 - a.1);
        return if round_a || round_b { (width / 2.0 + 0.5 - distance).clamp(0.0, 1.0) } else { 0.0 };
    }
    let (along, across) = (
        ((p.0 - a.0) * dx + (p.1 - a.1) * dy) / length,
        ((p.0 - a.0) * dy - (p.1 - a.1) * dx).abs() / length,
    );
    let beside = (width / 2.0 + 0.5 - across).clamp(0.0, 1.0).min(width);
    let beyond = if along < 0.0 { (-along, round_a, a) } else { (along - length, round_b, b) };
    match beyond {
        (past, ..) if past <= -0.5 => beside,
        (_, true, end) if along < 0.0 || along > length => {
            (width / 2.0 + 0.5 - (p.0 - end.0).hypot(p.1 - end.1)).clamp(0.0, 1.0)
        }
        (_, true, _) => beside,
        (past, false, _) => beside * (0.5 - past).clamp(0.0, 1.0),
    }
}

/// Where a level line is inside, by the non-zero rule.
fn spans(edges: &[&(Point, Point)], y: f64) -> Vec<(f64, f64)> {
    let crossing = |(a, b): &&&(Point, Point)| (a.1 <= y) != (b.1 <= y);
    let mut all: Vec<(f64, i32)> = edges
        .iter()
        .filter(crossing)
        .map(|(a, b)| (a.0 + (y - a.1) / (b.1 - a.1) * (b.0 - a.0), if b.1 > a.1 { 1 } else { -1 }))
        .collect();
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut turns, mut from, mut found) = (0, 0.0, Vec::new());
    for (x, turn) in all {
        if turns == 0 {
            from = x;
        }
        turns += turn;
        if turns == 0 {
            found.push((from, x));
        }
    }
    found
}

/// Adds a span to the coverage of a row.
fn cover(covered: &mut [f64], from: f64, to: f64) {
    let (from, to) = (from.max(0.0), to.min(covered.len() as f64));
    let mut x = from;
    while x < to {
        let next = (x.floor() + 1.0).min(to);
        covered[x as usize] += (next - x) / SUB as f64;
        x = next;
    }
}

/// A line cut into its dashes; itself where there are none.
fn dashes(line: &[Point], dash: &[f64]) -> Vec<Vec<Point>> {
    if dash.is_empty() || dash.iter().sum::<f64>() <= 0.0 {
        return vec![line.to_vec()];
    }
    let (mut found, mut now): (Vec<Vec<Point>>, Vec<Point>) = (Vec::new(), Vec::new());
    let (mut at, mut left) = (0, dash[0]);
    now.extend(line.first());
    for ab in line.windows(2) {
        let (a, b) = (ab[0], ab[1]);
        let length = (b.0 - a.0).hypot(b.1 - a.1);
        let mut done = 0.0;
        while length - done > left {
            done += left;
            let p = (a.0 + (b.0 - a.0) * done / length, a.1 + (b.1 - a.1) * done / length);
            if at % 2 == 0 {
                now.push(p);
                found.push(std::mem::take(&mut now));
            } else {
                now = vec![p];
            }
            at = (at + 1) % (dash.len() * 2);
            left = dash[at % dash.len()];
        }
        left -= length - done;
        if at % 2 == 0 {
            now.push(b);
        }
    }
    if now.len() > 1 {
        found.push(now);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLACK: Rgba = Rgba { rgb: [0, 0, 0], alpha: 1.0 };

    /// How dark each pixel is, 0 to 1, row by row.
    fn dark(canvas: Canvas) -> Vec<f64> {
        canvas.pixels.iter().map(|p| 1.0 - p[0] / 255.0).collect()
    }

    #[test]
    fn an_area_is_covered_by_its_size() {
        let mut canvas = Canvas::new(9, 7);
        canvas.fill(&[vec![(1.25, 1.0), (6.0, 1.0), (6.0, 5.4), (1.25, 5.4)]], BLACK);
        let all = dark(canvas);
        assert!((all.iter().sum::<f64>() - 4.75 * 4.4).abs() < 1e-9);
        assert!((all[9 + 1] - 0.75).abs() < 1e-9 && (all[9 + 2] - 1.0).abs() < 1e-9);
        assert_eq!(all[9 + 6], 0.0);
    }

    #[test]
    fn a_hole_turns_the_other_way() {
        let outer = vec![(1.0, 1.0), (8.0, 1.0), (8.0, 8.0), (1.0, 8.0)];
        let hole: Vec<Point> = [(3.0, 3.0), (6.0, 3.0), (6.0, 6.0), (3.0, 6.0)].into_iter().rev().collect();
        let mut canvas = Canvas::new(9, 9);
        canvas.fill(&[outer, hole], BLACK);
        let all = dark(canvas);
        assert!((all.iter().sum::<f64>() - (49.0 - 9.0)).abs() < 1e-9 && all[4 * 9 + 4] == 0.0);
    }

    #[test]
    fn a_line_has_its_width_and_length() {
        for (to, round, wanted) in [((17.0, 6.0), false, 14.0 * 3.0), ((17.0, 6.0), true, 14.0 * 3.0 + 7.07)]
        {
            let mut canvas = Canvas::new(21, 13);
            canvas.stroke(&[vec![(3.0, 6.0), to]], false, 3.0, &[], round, BLACK);
            let sum: f64 = dark(canvas).iter().sum();
            assert!((sum - wanted).abs() < 0.6, "{sum} for {wanted}");
        }
    }

    #[test]
    fn dashes_follow_the_pattern_around_corners() {
        let line = [(0.0, 0.0), (10.0, 0.0), (10.0, 9.0)];
        let all = dashes(&line, &[4.0, 3.0]);
        let expected = vec![
            vec![(0.0, 0.0), (4.0, 0.0)],
            vec![(7.0, 0.0), (10.0, 0.0), (10.0, 1.0)],
            vec![(10.0, 4.0), (10.0, 8.0)],
        ];
        assert_eq!(all, expected);
        // The whole pattern is longer than the line.
        assert_eq!(dashes(&line, &[30.0, 3.0]), vec![line.to_vec()]);
    }

    #[test]
    fn a_half_transparent_corner_is_painted_once() {
        let mut canvas = Canvas::new(20, 20);
        let half = Rgba { alpha: 0.5, ..BLACK };
        canvas.stroke(&[vec![(3.0, 3.0), (12.0, 3.0), (12.0, 15.0)]], false, 4.0, &[], false, half);
        assert!(dark(canvas).into_iter().all(|d| d <= 0.5 + 1e-9));
    }
}
