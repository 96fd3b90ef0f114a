"""Several processes, started as users start them: by --nproc, torchrun and Slurm."""
