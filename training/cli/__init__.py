"""The offline commands of ``visavis``, one group a module. Those that train need ``visavis[train]``."""
