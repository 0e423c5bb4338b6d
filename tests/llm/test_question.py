"""Questions and `llm`, with a model that is a function. Servers are in test_faults."""

import asyncio
import json
import math
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracle import gradients_of

import byssus
from byssus import (
    BlackBoxError,
    BlackBoxTimeout,
    Boolean,
    BudgetExceeded,
    CallRefused,
    Discrete,
    DomainError,
    Integer,
    LLMError,
    ReplayMiss,
    SettingsError,
)
from byssus.llm import question
from byssus.llm._client import NotServedError, Reply
from byssus.llm.cache import Cost, get_cache
