"""Configuration of Nipype, and the plugin that runs its graphs."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nipype.pipeline import plugins
from nipype.pipeline.plugins.base import PluginBase

from bidsfit.choices import read_yaml
from bidsfit.exceptions import UnknownNameError, UsageError
from bidsfit.run.settings import Settings

if TYPE_CHECKING:
    from bidsfit.run.scheduler import Finished


def configure_nipype(settings: Settings) -> None:
    """Configure Nipype, which then does not look for updates online."""
    from nipype import config
    from nipype import logging as nipype_logging

    config.update_config(
        {
            "execution": {
                "crashfile_format": "txt",
                "check_version": "false",
                "create_report": "false",
                "remove_unnecessary_outputs": "false",
                "stop_on_first_crash": str(settings.stop_on_first_crash).lower(),
                "poll_sleep_duration": "0.2",
            },
            "monitoring": {"enabled": str(settings.resource_monitor).lower()},
        }
    )
    config.resource_monitor = settings.resource_monitor  # its own switch, which an earlier run may have left on
    nipype_logging.update_logging(config)
    level = (logging.CRITICAL, logging.INFO, logging.INFO)[min(settings.verbosity, 2)]
    for name in ("nipype.workflow", "nipype.interface", "nipype.utils"):
        logger = logging.getLogger(name)
        logger.setLevel(level if settings.verbosity < 3 else logging.DEBUG)
        if settings.verbosity == 1:  # errors come as messages, without tracebacks
            logger.addFilter(lambda record: record.levelno < logging.ERROR)


def read_plugin(settings: Settings) -> dict[str, Any]:
    """Nipype's plugin and its arguments: from a file, or the cores and memory of the run."""
    if settings.nipype_plugin_file is not None:
        content = read_yaml(settings.nipype_plugin_file, "plugin file")
        foreign = set(content) - {"plugin", "plugin_args"}
        if "plugin" not in content or foreign or not isinstance(content.get("plugin_args", {}), dict):
            raise UsageError(
                f"The plugin file {settings.nipype_plugin_file} must hold 'plugin' and perhaps a table 'plugin_args'."
            )
        if not hasattr(plugins, f"{content['plugin']}Plugin"):
            names = [name.removesuffix("Plugin") for name in vars(plugins) if name.endswith("Plugin")]
            raise UnknownNameError(f"Nipype plugin in {settings.nipype_plugin_file}:", str(content["plugin"]), names)
        if content["plugin"].endswith("Graph"):
            raise UsageError(
                f"The plugin {content['plugin']} in {settings.nipype_plugin_file} returns before the steps have run, "
                f"so that nothing could tell of their failures. Use {content['plugin'].removesuffix('Graph')}."
            )
        return content
    arguments: dict[str, Any] = {"n_procs": settings.nprocs}
    if settings.mem_gb is not None:
        arguments["memory_gb"] = settings.mem_gb
    return {"plugin": "MultiProc", "plugin_args": arguments}


def started(plugin: Mapping[str, Any], order: Sequence[str], finished: Callable[[Finished], None]) -> PluginBase:
    """The plugin; for local ones bidsfit's scheduler with its workers started."""
    name, arguments = plugin["plugin"], plugin.get("plugin_args") or {}
    if name not in ("Linear", "MultiProc"):
        os.environ.setdefault("LOGNAME", str(os.getuid()))  # that of SLURM wants it, for the names of jobs
        return getattr(plugins, f"{name}Plugin")(plugin_args=arguments)
    from bidsfit.run.scheduler import Scheduler  # and with it all that steps need

    return Scheduler(
        1 if name == "Linear" else arguments.get("n_procs", len(os.sched_getaffinity(0))),
        arguments.get("memory_gb"),
        order=order,
        finished=finished,
    )
