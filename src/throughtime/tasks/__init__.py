"""Tasks: a file each, for the files it reads, its metrics, and how it answers."""

from throughtime.tasks.base import TASKS, Task, Trained, find_task, load

__all__ = ["TASKS", "Task", "Trained", "find_task", "load"]
