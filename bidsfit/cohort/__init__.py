"""What a cohort tells: its design, values in regions, statistics, tables and words; nothing here knows Nipype."""
