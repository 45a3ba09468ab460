# How jobs are run: on this machine. On a cluster put Kaldi's queue.pl or slurm.pl here.
export train_cmd="../../utils/run.sh --max-jobs-run ${nj:-2}"
export decode_cmd="../../utils/run.sh --max-jobs-run ${nj:-2}"
