"""Estimators that are trained before they fit: networks, random forests, and files of them given by users."""
