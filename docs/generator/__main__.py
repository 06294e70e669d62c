"""python docs/generator FOLDER"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import generator

for page in generator.write(Path(sys.argv[1])):
    print(page)
