"""Analysis of a cohort: design, region values, statistics, tables and texts; independent of Nipype."""
