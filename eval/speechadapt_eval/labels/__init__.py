"""Labels and values: accuracy, F1, average precision, calibration, agreement with raters."""
