"""Tasks: a file each, for the files it reads, its metrics, and how it answers."""

from throughtime.tasks.base import Task, Trained
from throughtime.tasks.registry import find_task, load, task_names

__all__ = ["Task", "Trained", "find_task", "load", "task_names"]
