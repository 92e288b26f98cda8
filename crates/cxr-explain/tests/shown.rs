//! What is shown of heat maps: colours, the choice of images, sums over boxes.

use cxr_explain::{
    Agreement, BoxTally, Candidate, ExplainError, HeatMap, OverlayStyle, Region, choose_panel,
    overlay,
};

#[test]
fn cold_cells_stay_a_radiograph_and_hot_ones_shine() {
    // One row: cold, half, hot, as large as the picture, so that nothing is interpolated.
    let map = HeatMap::new(1, 3, vec![0., 2., 4.]).unwrap();
    let grey = [10, 100, 200];
    let pixels = overlay(&grey, (1, 3), &map, &Region::WHOLE, OverlayStyle::Inferno).unwrap();
    assert_eq!(pixels[..3], [10, 10, 10], "a cold cell is untouched");
    // Halfway: (186, 54, 85) at 0.375 over grey 100.
    assert_eq!(pixels[3..6], [132, 83, 94]);
    // Hot: (252, 255, 164) at 0.75 over grey 200.
    assert_eq!(pixels[6..], [239, 241, 173]);

    let jet = overlay(&grey, (1, 3), &map, &Region::WHOLE, OverlayStyle::Jet).unwrap();
    // Cold is dark blue, halfway green, hot dark red, each at 0.4.
    assert_eq!(jet[..3], [6, 6, 57]);
    assert_eq!(jet[3..6], [111, 162, 111]);
    assert_eq!(jet[6..], [171, 120, 120]);

    let nothing = HeatMap::new(1, 3, vec![0.; 3]).unwrap();
    let pixels = overlay(
        &grey,
        (1, 3),
        &nothing,
        &Region::WHOLE,
        OverlayStyle::Inferno,
    )
    .unwrap();
    assert_eq!(pixels, [10, 10, 10, 100, 100, 100, 200, 200, 200]);
    let error = overlay(&grey, (2, 3), &map, &Region::WHOLE, OverlayStyle::Jet).unwrap_err();
    let ExplainError::Pixels { expected, found } = error else {
        panic!("{error}");
    };
    assert_eq!((expected, found), (6, 3));
}

fn candidate(labels: [bool; 3], logits: [f32; 3]) -> Candidate {
    Candidate {
        labels: labels.to_vec(),
        logits: logits.to_vec(),
    }
}

#[test]
fn the_panel_takes_new_labels_first_and_says_what_is_right() {
    const NO: bool = false;
    let candidates = [
        candidate([true, NO, NO], [1., -1., -1.]), // 0: right, label 0
        candidate([true, NO, NO], [2., -1., -1.]), // 1: right, label 0 again
        candidate([NO, NO, true], [-1., -1., 0.5]), // 2: right, label 2
        candidate([NO, NO, NO], [-3., -2., -4.]),  // 3: right, none; nearest is label 1
        candidate([true, true, NO], [1., 3., -1.]), // 4: right, several; label 1 is highest
        candidate([true, NO, NO], [-1., -2., -3.]), // 5: wrong, missed; label 0 is nearest
        candidate([NO, NO, NO], [-1., -2., 0.1]),  // 6: wrong, added
    ];
    let thresholds = [0.; 3];
    let panel = choose_panel(&candidates, &thresholds, 2);
    let shown: Vec<(usize, Agreement, usize)> = panel
        .iter()
        .map(|choice| (choice.candidate, choice.agreement, choice.label))
        .collect();
    assert_eq!(
        shown,
        [
            (0, Agreement::RightSingle, 0),
            (2, Agreement::RightSingle, 2),
            (3, Agreement::RightSeveralOrNone, 1),
            (4, Agreement::RightSeveralOrNone, 1),
            (5, Agreement::Wrong, 0),
            (6, Agreement::Wrong, 2),
        ]
    );
    // Three of a kind: what is left follows, in order; two are all there are of the others.
    let panel = choose_panel(&candidates, &thresholds, 3);
    let singles: Vec<usize> = panel
        .iter()
        .take(3)
        .map(|choice| choice.candidate)
        .collect();
    assert_eq!(singles, [0, 2, 1]);
    assert_eq!(panel.len(), 7);
    // A logit at the threshold is not above it.
    let edge = candidate([NO, NO, NO], [0., -1., -1.]);
    assert_eq!(edge.agreement(&thresholds), Agreement::RightSeveralOrNone);
    assert_eq!(edge.agreement(&[-0.5, 0., 0.]), Agreement::Wrong);
}

#[test]
fn a_tally_counts_empty_maps_as_misses() {
    let mut tally = BoxTally::default();
    assert_eq!((tally.mean_area(), tally.mean_overlap()), (None, None));
    let map = HeatMap::new(2, 2, vec![1., 4., 0., 2.]).unwrap();
    let right = Region::new(0.5, 0., 0.5, 1.).unwrap();
    let left = Region::new(0., 0., 0.5, 1.).unwrap();
    tally.add(&map, &right, 0.5); // both hot cells are the box: a hit, overlap 1
    tally.add(&map, &left, 0.5); // a miss, overlap 0
    tally.add(&HeatMap::new(2, 2, vec![0.; 4]).unwrap(), &left, 0.5);
    tally.add(&map, &Region::new(0.5, 0., 0.25, 0.5).unwrap(), 0.9); // overlap ½; the peak's centre lies on the edge
    assert_eq!((tally.boxes, tally.hits, tally.empty_maps), (4, 1, 1));
    assert!((tally.mean_overlap().unwrap() - 1.5 / 4.).abs() < 1e-12);
    assert!((tally.mean_area().unwrap() - (0.5 * 3. + 0.125) / 4.).abs() < 1e-12);
}
