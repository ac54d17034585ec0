"""Examples and exit codes of the command `foldmint-bulk`."""

from foldmint.command_line import epilog

ERROR = 1
USAGE = 2
LEFT = 3
FAILED = 4

EPILOG = epilog(
    {
        "An archive of a proteome": "foldmint-bulk UP000005640_9606_HUMAN_v4.tar -o human",
        "On four GPUs, from one bucket to another": (
            "foldmint-bulk s3://bucket/structures -o s3://bucket/tokens --device cuda --workers 4 --parsers 8"
        ),
        "The share of a Slurm array of 100 tasks, numbered from 0": (
            "foldmint-bulk structures -o tokens --slice $SLURM_ARRAY_TASK_ID/100"
        ),
        "On 64 cores of a Ray cluster": (
            "foldmint-bulk /shared/structures -o /shared/tokens --engine ray --ray-address auto --workers 64"
        ),
    },
    {
        0: "done; with --slice, the slice is done",
        ERROR: "an error; once its cause is gone, run it again",
        USAGE: "wrong options or inputs",
        LEFT: "units are left, because other processes stopped; run it again",
        FAILED: "all units have records, and some failed: see --retry-failed",
        130: "stopped by SIGINT; run it again",
        143: "stopped by SIGTERM; run it again",
    },
)
