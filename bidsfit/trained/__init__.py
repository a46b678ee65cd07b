"""Estimators that are trained before they fit: networks and forests, and files of them that users give."""
