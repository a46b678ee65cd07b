"""Configurations for platforms that run BIDS Apps on whole studies: BABS and nipoppy."""

from __future__ import annotations

from typing import Any

import yaml

from bidsfit import __version__
from bidsfit.cli.boutiques import descriptor

#: First lines of the file for BABS.
ABOUT_BABS = """\
# Container configuration of bidsfit for BABS (https://pennlinc-babs.readthedocs.io), written from the code.
# Change origin_url, the resources (bidsfit-lab slurm-script estimates them), script_preamble and job_compute_space, and
# add options of bidsfit to bids_app_args. With jobs of single sessions add: $SESSION_SELECTION_FLAG: "--session-label"
"""


def babs_container() -> str:
    """Container configuration for ``babs init``, as YAML."""
    content = {
        "input_datasets": {
            "BIDS": {
                "required_files": ["dwi/*_dwi.nii*"],
                "is_zipped": False,
                "origin_url": "/path/to/BIDS",
                "path_in_babs": "inputs/data/BIDS",
            }
        },
        "bids_app_args": {
            "$SUBJECT_SELECTION_FLAG": "--participant-label",
            "-w": "$BABS_TMPDIR",
            "--nprocs": "1",
            "--skip-bids-validation": "",
        },
        "singularity_args": ["--cleanenv", "--no-home"],
        "zip_foldernames": {"bidsfit": __version__.replace(".", "-")},
        "all_results_in_one_zip": True,
        "cluster_resources": {
            "interpreting_shell": "/bin/bash",
            "hard_memory_limit": "8G",
            "number_of_cpus": "1",
            "hard_runtime_limit": "4:00:00",
        },
        "script_preamble": "# what makes datalad and singularity available: module load ..., conda activate ...\n",
        "job_compute_space": "/tmp",
        "alert_log_messages": {
            "stderr": ["bidsfit: error:", "No space is left", "met an error that bidsfit does not expect"],
            "stdout": ["Done, with errors"],
        },
    }
    return ABOUT_BABS + yaml.safe_dump(content, sort_keys=False, width=120)


def nipoppy_pipeline() -> dict[str, dict[str, Any]]:
    """Files of the pipeline for ``nipoppy pipeline install``, by name."""
    participant, session = "[[NIPOPPY_BIDS_PARTICIPANT_ID]]", "[[NIPOPPY_BIDS_SESSION_ID]]"
    return {
        "config.json": {
            "NAME": "bidsfit",
            "VERSION": __version__,
            "DESCRIPTION": "Quantitative maps from diffusion MRI, and how far each map can be trusted",
            "CONTAINER_INFO": {"FILE": "[[NIPOPPY_DPATH_CONTAINERS]]/[[PIPELINE_NAME]]_[[PIPELINE_VERSION]].sif"},
            "STEPS": [
                {
                    "INVOCATION_FILE": "invocation.json",
                    "DESCRIPTOR_FILE": "descriptor.json",
                    "TRACKER_CONFIG_FILE": "tracker.json",
                    "HPC_CONFIG_FILE": "hpc.json",
                    "ANALYSIS_LEVEL": "participant_session",
                    "GENERATE_PYBIDS_DATABASE": False,
                }
            ],
            "PIPELINE_TYPE": "processing",
            "SCHEMA_VERSION": "1.0",
        },
        "descriptor.json": descriptor()
        | {"container-image": {"type": "singularity", "image": f"bidsfit:{__version__}", "index": "docker://"}},
        "invocation.json": {
            "bids_dir": "[[NIPOPPY_DPATH_BIDS]]",
            "output_dir": "[[NIPOPPY_DPATH_PIPELINE_OUTPUT]]",
            "analysis_level": "participant",
            "participant_label": [participant],
            "session_label": [session],
            "work_dir": "[[NIPOPPY_DPATH_PIPELINE_WORK]]",
            "nprocs": 1,
            "skip_bids_validation": True,
        },
        # The status map of a fit is written last.
        "tracker.json": {
            "PATHS": [f"{participant}/{session}/dwi/{participant}_{session}_*param-status_*dwimap.nii.gz"],
            "PARTICIPANT_SESSION_DIR": f"{participant}/{session}",
            "SCHEMA_VERSION": "1.0",
        },
        "hpc.json": {"ACCOUNT": "[[HPC_ACCOUNT_NAME]]", "TIME": "4:00:00", "CORES": "1", "MEMORY": "8G"},
    }
