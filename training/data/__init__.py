"""Data sets, splits and samplers. All but the pipeline and its augmentation is numpy only."""
