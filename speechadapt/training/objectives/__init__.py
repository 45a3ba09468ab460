"""What a run may minimise, one file each."""
