"""Robust accuracy while a network is trained, for a small share of the training's time."""

from bench.monitor.monitor import RobustnessMonitor
from bench.monitor.result import MonitorResult

__all__ = ["MonitorResult", "RobustnessMonitor"]
