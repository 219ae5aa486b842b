"""The command januslm, which launch.sh starts too: this machine now, several hosts and Slurm."""
